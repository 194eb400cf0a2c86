//! Bounds of what a model may take while it is compiled and run. A test of the host's holds them against its own.

/// One tensor between a model's inputs and outputs in bytes, and all that are alive at once as it runs.
pub(crate) const NN_ACTIVATION_BYTES_MAX: u64 = 1 << 30;
/// Constants that are computed as a model is loaded, or compiled for a shape, in bytes.
pub(crate) const NN_FOLD_BYTES_MAX: u64 = 1 << 30;
/// Tensors that a task's contexts may hold at once, in bytes.
pub(crate) const NN_TENSOR_BYTES_MAX: u64 = 256 << 20;
/// Dimensions of any tensor in a model.
pub(crate) const MODEL_RANK_MAX: u64 = 16;
