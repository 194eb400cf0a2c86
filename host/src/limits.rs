//! Every bound of the host, named with its unit. What a signed or hashed type may be bounded by stands beside that type
//! in `registry`; what a decision is bounded by, in `grid::config`.

/// Length in bytes of a task module.
pub const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Functions that a module may define.
pub const MODULE_FUNCTIONS_MAX: u32 = 200_000;
/// Types that a module may define.
pub const MODULE_TYPES_MAX: u32 = 20_000;
/// Parameters and results of one type: each branch carries as many values.
pub const TYPE_VALUES_MAX: u32 = 64;
/// Imports that a module may have.
pub const MODULE_IMPORTS_MAX: u32 = 1_000;
/// Exports that a module may have.
pub const MODULE_EXPORTS_MAX: u32 = 10_000;
/// Data and element segments that a module may have, each kind.
pub const MODULE_SEGMENTS_MAX: u32 = 100_000;
/// Length in bytes of a model file.
pub const MODEL_BYTES_MAX: u64 = 256 << 20;

/// Length in bytes of the body of one function: an interpreter's main loop takes some hundred thousand.
pub const MODULE_FUNCTION_BYTES_MAX: u32 = 4 << 20;
/// Length in bytes of all functions together.
pub const MODULE_CODE_BYTES_MAX: u32 = 48 << 20;
/// Work of compiling a module, in about microseconds of processor time: see `sandbox::preflight`. What is surely over every
/// host's budget is refused before anybody fetches it; what is near is for each host's [`COMPILE_CPU_S`] to say.
pub const MODULE_WORK_MAX: u64 = 400_000_000;
/// Processor time in seconds for compiling one module, unless the host's configuration says otherwise: about twice what a
/// Python interpreter takes.
pub const COMPILE_CPU_S: u64 = 120;
/// Memory in bytes for the same.
pub const COMPILE_MEMORY_BYTES: u64 = 2 << 30;
/// Time in milliseconds for the same: twice the processor time, since tasks run meanwhile.
pub const COMPILE_WALL_MS: u64 = 240_000;
/// Most processor time in seconds that a host's configuration may give to compiling one module.
pub const COMPILE_CPU_S_MAX: u64 = 3_600;
/// Least memory in bytes that a compiler starts with.
pub const COMPILE_MEMORY_BYTES_MIN: u64 = 64 << 20;
/// Most memory in bytes that a host's configuration may give to compiling one module.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 64 << 30;
/// Most time in milliseconds that a host's configuration may give to compiling one module.
pub const COMPILE_WALL_MS_MAX: u64 = 2 * 3_600 * 1000;
/// Length in bytes of the machine code of one module.
pub const ARTIFACT_BYTES_MAX: u64 = 512 << 20;
/// Length in bytes of what is written with machine code about its module.
pub const ARTIFACT_STATEMENT_BYTES_MAX: usize = 64 << 10;
/// Machine code kept on disk in bytes, unless the host's configuration says otherwise.
pub const COMPILED_BYTES_MAX: u64 = 4 << 30;
/// Modules that do not compile which are remembered, so that their budget is not spent again.
pub const COMPILE_REFUSALS_MAX: usize = 1024;
/// Length in bytes of what is heard of a compiler.
pub const COMPILER_WORDS_BYTES_MAX: usize = 16 << 10;
/// Time in milliseconds between two looks at whether another process has compiled a module.
pub const COMPILE_LOCK_POLL_MS: u64 = 10;
/// Length in bytes of the expression for an initial value or offset.
pub const MODULE_INITIAL_BYTES_MAX: u32 = 1 << 10;
/// Elements of all element segments together: each costs about 20 us and 2 kB to compile.
pub const MODULE_ELEMENTS_MAX: u32 = 1 << 19;
/// Locals of one function.
pub const MODULE_FUNCTION_LOCALS_MAX: u32 = 10_000;
/// Globals that a module may define.
pub const MODULE_GLOBALS_MAX: u32 = 10_000;
/// Tables that a module may define.
pub const MODULE_TABLES_MAX: u32 = 4;
/// Elements of one table, grown or not.
pub const TABLE_ELEMENTS_MAX: u32 = 1 << 17;
/// Stack in bytes, by our own estimate of frames, that recursion may use; what exceeds it is a trap. See
/// `sandbox::admit::stack`.
pub const STACK_BYTES_MAX: u32 = 8 << 20;
/// The same for a chain of calls without recursion; in a module with a longer one, every function counts.
pub const STACK_CHAIN_BYTES_MAX: u64 = 1 << 20;
/// Native stack in bytes that a guest may use: what overflows it before the estimate does is a fault of the host.
pub const WASM_STACK_BYTES_MAX: usize = 24 << 20;
/// Native stack in bytes that running a task takes: the guest's, and what calls of the host need on top.
pub const TASK_STACK_BYTES: usize = WASM_STACK_BYTES_MAX + (1 << 20);
/// Fuel that a guest may use before the host looks at deadlines and cancellations: some milliseconds.
pub const FUEL_SLICE: u64 = 4_000_000;
/// Size in bytes of what the engine keeps of one instance beside its memory and tables.
pub const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Fuel after which a segment of a task with steps may end: some ten milliseconds.
pub const SEGMENT_FUEL_MIN: u64 = 20_000_000;
/// How much more fuel a segment has than it costs to hash the state at its end.
pub const SEGMENT_FUEL_PER_STATE_FUEL: u64 = 64;
/// Linear memory in bytes that any task may ask for: all that 32-bit addresses reach.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Fuel for one call of the host, before what it copies.
pub const HOST_CALL_FUEL: u64 = 100;
/// Bytes that a call of the host reads, writes or compares for one unit of fuel.
pub const HOST_CALL_BYTES_PER_FUEL: u64 = 4;
/// Fuel for each block of 64 bytes that the host hashes with BLAKE3, the last one with its padding. A nanosecond of
/// compiled code burns from 5 to 45 units of fuel; at this price one of hashing burns 4 without vectors and 28 with the
/// widest.
pub const HASH_BLAKE3_FUEL_PER_BLOCK: u64 = 256;
/// Fuel for each block of 64 bytes that the host hashes with SHA-256: 5 in a nanosecond on a processor without instructions
/// for it, 28 on one that has them. A guest that does it itself burns eight times as much.
pub const HASH_SHA256_FUEL_PER_BLOCK: u64 = 1024;
/// Bytes that are hashed between two looks at the deadline.
pub const HASH_PIECE_BYTES: usize = 256 << 10;
/// Open file descriptors of a task, the standard ones and the root among them.
pub const FDS_MAX: usize = 256;
/// Names of files, directories and links of a task beside its inputs.
pub const NODES_MAX: usize = 4096;
/// Length in bytes of a path that a task may name.
pub const PATH_BYTES_MAX: usize = 4096;
/// Length in bytes of one component of a path.
pub const PATH_NAME_BYTES_MAX: usize = 255;
/// Symbolic links that one path may lead through.
pub const LINKS_FOLLOWED_MAX: u32 = 40;
/// Buffers of one scattered read or gathered write.
pub const IOVECS_MAX: u32 = 1024;
/// Subscriptions of one `poll_oneoff`.
pub const SUBSCRIPTIONS_MAX: u32 = 1024;
/// Random bytes of one `random_get`.
pub const RANDOM_BYTES_MAX: u32 = 16 << 20;

/// Input files of a task, together, in bytes.
pub const INPUT_FILES_BYTES_MAX: u64 = 4 << 30;
/// Standard output and files under `/out` that any task may ask for, in bytes.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 30;
/// Standard error that any task may ask to be kept, in bytes.
pub const LOG_BYTES_MAX: u64 = 16 << 20;
/// Files under `/tmp` that any task may ask for, in bytes.
pub const SCRATCH_BYTES_MAX: u64 = 4 << 30;
/// Time that any task may ask for, in milliseconds: one day.
pub const WALL_MS_MAX: u64 = 24 * 3600 * 1000;
/// Time in milliseconds between two looks at whether a task of a sandbox process was cancelled.
pub const SANDBOX_POLL_MS: u64 = 10;
/// Tasks that one sandbox may run at once.
pub const SLOTS_MAX: u32 = 1024;

/// Length in bytes of what travels inline to or from a sandbox process; longer content is handed over as a memory file.
pub const SANDBOX_INLINE_BYTES_MAX: usize = 64 << 10;
/// Length in bytes of what a sandbox process says beside outputs: paths, and a line for each inference.
pub const SANDBOX_HEAD_BYTES_MAX: usize = 48 << 20;
/// Length in bytes of the reason that a sandbox process gives for a fault.
pub const SANDBOX_DETAIL_BYTES_MAX: usize = 4 << 10;
/// Bytes of a sandbox process's standard error that are logged at a time; the rest is counted.
pub const SANDBOX_LOG_BYTES_MAX: usize = 2 << 10;
/// Time in milliseconds for a sandbox process to be ready.
pub const SANDBOX_START_MS_MAX: u64 = 30_000;
/// Time in milliseconds for a sandbox process to load a module or a model.
pub const SANDBOX_LOAD_MS_MAX: u64 = 120_000;
/// Time in milliseconds by which a sandbox process may miss a deadline before it is killed.
pub const SANDBOX_DEADLINE_GRACE_MS: u64 = 2_000;
/// Time in milliseconds that a sandbox process has to let go of a cancelled task before it is killed.
pub const SANDBOX_CANCEL_GRACE_MS: u64 = 1_000;
/// Time in milliseconds after which a sandbox process that has nothing to do is ended.
pub const SANDBOX_IDLE_MS: u64 = 60_000;
/// Time in milliseconds of work after which a sandbox process is replaced, between two tasks.
pub const SANDBOX_WORK_MS_MAX: u64 = 3600 * 1000;
/// Processor time in seconds in the life of a sandbox process: its longest task after an hour of others, twice over, since it
/// has two threads.
pub const SANDBOX_CPU_S_MAX: u64 = 2 * (WALL_MS_MAX + SANDBOX_WORK_MS_MAX) / 1000;
/// Memory in bytes of a sandbox process beside what its tasks may have: the program, its compiler, models at work.
pub const SANDBOX_BASE_BYTES: u64 = 2 << 30;
/// Address space in bytes of a sandbox process: reservations of the engine, and inputs that are mapped.
pub const SANDBOX_ADDRESS_BYTES_MAX: u64 = 128 << 30;
/// Descriptors of a sandbox process: the standard ones, one for each module, and one for content that is handed over.
pub const SANDBOX_DESCRIPTORS_MAX: u64 = 64;
/// Descriptors that a GPU's driver may have open beside these.
pub const SANDBOX_GPU_DESCRIPTORS_MAX: u64 = 960;
/// Memory in bytes of a sandbox process for what a GPU's driver and its libraries keep on this side.
pub const SANDBOX_GPU_BYTES: u64 = 8 << 30;
/// Modules that a sandbox process loads before it is replaced, so that its descriptors last.
pub const SANDBOX_MODULES_MAX: usize = 48;
/// Length in bytes of a memory file of a sandbox process: the initial memory of a module. The engine makes none that is longer
/// than twice its data.
pub const SANDBOX_IMAGE_BYTES_MAX: u64 = 2 * MODULE_BYTES_MAX;
/// Bytes of a task's memory, inputs and outputs after which its process is asked what it kept.
pub const SANDBOX_LARGE_TASK_BYTES: u64 = 16 << 20;
/// Memory in bytes that a sandbox process may have kept of its tasks before it is replaced.
pub const SANDBOX_KEPT_BYTES_MAX: u64 = 32 << 20;

/// Fields of all messages of a model file: each becomes a structure of some hundred bytes in a backend.
pub const MODEL_FIELDS_MAX: u64 = 1 << 20;
/// Operators of a model, those of graphs inside of operators too: a backend compares them in pairs.
pub const MODEL_NODES_MAX: u64 = 20_000;
/// Graphs of a model that are inside of one another.
pub const MODEL_DEPTH_MAX: u64 = 8;
/// Operator sets that a model may name.
pub const MODEL_OPSETS_MAX: u64 = 32;
/// Inputs of a model, and outputs.
pub const MODEL_TENSORS_MAX: u64 = 1024;
/// Dimensions of any tensor in a model: more than a task's own, since some lie between.
pub const MODEL_RANK_MAX: u64 = 16;
/// Numbers of one attribute of an operator: tables belong into constants.
pub const MODEL_ATTRIBUTE_VALUES_MAX: u64 = 1 << 20;
/// Length in bytes of a name in a model.
pub const MODEL_NAME_BYTES_MAX: usize = 4096;
/// Constants of a model in bytes, decoded: lists of numbers are shorter in the file than in memory.
pub const MODEL_CONSTANT_BYTES_MAX: u64 = 2 * MODEL_BYTES_MAX;

/// One tensor between a model's inputs and outputs in bytes, and all that are alive at once as it runs.
pub const NN_ACTIVATION_BYTES_MAX: u64 = 1 << 30;
/// Constants that are computed as a model is loaded, or compiled for a shape, in bytes.
pub const NN_FOLD_BYTES_MAX: u64 = 1 << 30;
/// Graphs and contexts that a task may open, each kind: preview 1 has no way to close one.
pub const NN_HANDLES_MAX: usize = 64;
/// Native stack in bytes that a backend has at least.
pub const NN_STACK_BYTES: usize = 2 << 20;
/// Models that a task brings in its own memory, all together, in bytes.
pub const NN_BROUGHT_BYTES_MAX: u64 = 64 << 20;
/// Dimensions of a tensor.
pub const NN_RANK_MAX: u32 = 8;
/// Length in bytes of a local model name.
pub const NN_NAME_BYTES_MAX: u32 = 255;
/// Tensors that a task's contexts may hold at once, in bytes.
pub const NN_TENSOR_BYTES_MAX: u64 = 256 << 20;
/// Different input shapes that one task may run one graph with: each is compiled for itself.
pub const NN_SHAPES_MAX: usize = 16;
/// Compiled shapes kept of one model.
pub const NN_PLANS_MAX: usize = 16;
/// Inferences of a task: each is listed in its result.
pub const NN_INFERENCES_MAX: usize = 1 << 17;
/// Output tensors in bytes that are kept of a task for its auditors, with what is said of each: one more inference is an error to
/// the guest.
pub const NN_RECORD_BYTES_MAX: u64 = 64 << 20;
/// Length in bytes of the record itself: the same, and the engine that it was made on.
pub const NN_RECORD_FILE_BYTES_MAX: usize = (64 << 20) + (64 << 10);
/// Fuel for one inference, before its work.
pub const NN_INFERENCE_FUEL: u64 = 10_000;
/// Fuel for getting a model ready before any task infers with it.
pub const NN_WARM_FUEL_MAX: u64 = 100_000_000_000;
/// Fuel for loading a model that the task brings, for each byte of its file.
pub const NN_LOAD_FUEL_PER_BYTE: u64 = 16;
/// The same for each of its operators, whose shapes are inferred.
pub const NN_LOAD_FUEL_PER_NODE: u64 = 20_000;
/// Fuel for the first use of a graph with a shape in a task, for each byte of the model file.
pub const NN_SHAPE_FUEL_PER_BYTE: u64 = 4;
/// Memory in bytes of the engine that models run in inside the sandbox, one task's. Not for a host to choose: a model that has no
/// room has none anywhere.
pub const NN_REFEREE_MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Length in bytes of what that engine answers: all outputs, and what is said of each.
pub const NN_REFEREE_ANSWER_BYTES_MAX: u64 = NN_TENSOR_BYTES_MAX + (1 << 20);
/// Fuel for loading a model into it: some ten seconds. A task pays what it took, for each shape that it runs the model with.
pub const NN_REFEREE_LOAD_FUEL_MAX: u64 = 100_000_000_000;
/// Memories of one model, loaded and compiled for shapes, in bytes that are kept at most.
pub const NN_REFEREE_KEPT_BYTES_MAX: u64 = 512 << 20;
/// Rows of the square matrices whose product measures a processor.
pub const MEASURE_CPU_SIDE: u32 = 256;
/// Rows of the square matrices whose products measure a GPU, as long as there is time: enough to keep a large one busy for a
/// moment.
pub const MEASURE_GPU_SIDES: [u32; 4] = [256, 512, 1024, 2048];
/// Products that are timed, the best of which counts.
pub const MEASURE_ROUNDS_MAX: u32 = 10;
/// Time in milliseconds after which no further product is timed.
pub const MEASURE_MS_MAX: u64 = 200;
/// Events and rows that go into one commit of the journal.
pub const JOURNAL_BATCH_MAX: usize = 4096;
/// Pages of SQLite's write-ahead log after which it is folded into the file.
pub const JOURNAL_CHECKPOINT_PAGES: u32 = 4000;
/// Memory in KiB that each of the journal's connections caches pages in.
pub const JOURNAL_CACHE_KIB: u32 = 4096;
/// Events after which an idle coordinator replaces them by a snapshot of its state.
pub const SNAPSHOT_EVENTS_MIN: u64 = 1_000;
/// Events after which a busy coordinator does the same.
pub const SNAPSHOT_EVENTS_MAX: u64 = 500_000;
/// Bytes of job inputs that the coordinator keeps in memory, so that shards travel with their assignments.
pub const INPUT_CACHE_BYTES_MAX: u64 = 64 << 20;
/// Length in bytes of a shard's input that travels with its assignment; longer ones are fetched as blobs.
pub const INPUT_INLINE_BYTES_MAX: u64 = 64 << 10;
/// Messages that may wait for one host to read them.
pub const OUTBOX_MAX: usize = 8192;
/// Notices that a slow watcher may be behind before it misses some.
pub const NOTICES_MAX: usize = 16_384;
/// Commands that may wait for the coordinator.
pub const COMMANDS_MAX: usize = 8192;
/// Length in bytes of one event of the journal: a job with its plan is the largest.
pub const EVENT_BYTES_MAX: usize = 256 << 20;
/// Length in bytes of what a reduce task may get as its input.
pub const REDUCE_INPUT_BYTES_MAX: u64 = 1 << 30;

/// Length in bytes of one frame between a host and its coordinator.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Length in bytes of the first frame in either direction, which is read before anything is known of the other side.
pub const HELLO_BYTES_MAX: usize = 256 << 10;
/// Bytes after which a batch goes out; an item that is longer alone is a batch of its own.
pub const BATCH_BYTES: usize = 256 << 10;
/// Items of one frame.
pub const BATCH_ITEMS_MAX: usize = 1024;
/// Length in bytes of the name and version that a peer calls itself by.
pub const AGENT_BYTES_MAX: usize = 64;
/// Length in bytes of a word for machines, such as a fault's.
pub const WORD_BYTES_MAX: usize = 64;
/// Assignments that a host may hold: waiting, running, or finished with a receipt that is not acknowledged.
pub const HOLDING_MAX: usize = 16_384;
/// Assignments that a host may offer to hold besides those that run.
pub const HOST_QUEUE_MAX: u32 = 8192;
/// Length in bytes of a standard output that travels with its receipt; longer ones are fetched as blobs.
pub const OUTPUT_INLINE_BYTES_MAX: usize = 64 << 10;
/// Length in bytes of one file of a host's log of receipts, after which another is begun: some 15,000 receipts.
pub const RECEIPT_LOG_SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes of a host's log of receipts; past them the oldest files go.
pub const RECEIPT_LOG_BYTES_MAX: u64 = 1 << 30;
/// Heads of one host's log that a coordinator remembers, so that it checks each once and sees which contradict each other.
pub const HEADS_PER_HOST_MAX: usize = 256;
/// Hosts whose heads a coordinator remembers besides those that are connected.
pub const HEADS_HOSTS_MAX: usize = 4096;
/// Jobs' templates that both ends of a connection remember.
pub const TEMPLATES_MAX: usize = 1024;
/// The same in bytes.
pub const TEMPLATES_BYTES_MAX: usize = 64 << 20;
/// Hosts that may be connected to a coordinator.
pub const HOSTS_MAX: usize = 4096;
/// Connections that have not said hello yet.
pub const HELLOS_MAX: usize = 256;
/// Time in milliseconds for the hello, in either direction.
pub const HELLO_MS_MAX: u64 = 5_000;
/// Time in milliseconds for one attempt to connect.
pub const CONNECT_MS_MAX: u64 = 3_000;
/// Silence in milliseconds after which a peer that has nothing to say says so.
pub const HEARTBEAT_MS: u64 = 1_000;
/// Silence in milliseconds after which the other side is taken for lost.
pub const SILENCE_MS_MAX: u64 = 5_000;
/// Time in milliseconds that the other side may take to accept one write.
pub const WRITE_MS_MAX: u64 = 10_000;
/// Time in milliseconds for the last words of a connection.
pub const FAREWELL_MS_MAX: u64 = 1_000;
/// Batches of receipts of one host that are being checked at a time; beyond that its connection is not read.
pub const CHECKS_MAX: usize = 4;
/// Receipts that are checked as one piece of work.
pub const CHECK_ITEMS_MAX: usize = 64;
/// Outputs of one host that are being fetched at a time; beyond that its connection is not read.
pub const FETCHES_MAX: usize = 16;
/// Time in milliseconds for fetching one output of a host.
pub const OUTPUT_FETCH_MS_MAX: u64 = 120_000;
/// Length in bytes of a state that a host sends while its task runs, so that the task can go on elsewhere; of a task with larger ones
/// nothing is kept.
pub const CHECKPOINT_BYTES_MAX: u64 = 256 << 20;
/// Time in milliseconds after which a host keeps a state, unless its configuration says otherwise.
pub const CHECKPOINT_MS: u64 = 30_000;
/// The shortest and the longest time that it may say.
pub const CHECKPOINT_MS_MIN: u64 = 100;
/// See [`CHECKPOINT_MS_MIN`].
pub const CHECKPOINT_MS_MAX: u64 = 86_400_000;
/// States of one host that are being fetched at a time; further ones wait.
pub const CHECKPOINT_FETCHES_MAX: usize = 2;
/// Bytes of states a second that are fetched of one host, on average: whoever keeps states all the time must not keep the disk busy.
pub const CHECKPOINT_BYTES_PER_S_MAX: u64 = 16 << 20;
/// Modules and models that a host compiles at a time: each takes every core and much memory.
pub const LOADS_MAX: usize = 2;
/// Shortest wait in milliseconds before a host connects again; doubles with each attempt that fails.
pub const RECONNECT_MS_MIN: u64 = 100;
/// Longest wait in milliseconds before a host connects again.
pub const RECONNECT_MS_MAX: u64 = 3_000;
/// Time in milliseconds for running tasks to end when a host stops.
pub const SHUTDOWN_MS_MAX: u64 = 3_000;
/// Length in bytes of a task's standard input.
pub const STDIN_BYTES_MAX: u64 = 1 << 30;
/// Input files in bytes that a host keeps in memory for jobs whose tasks it may get next.
pub const FILE_CACHE_BYTES_MAX: u64 = 1 << 30;
/// Length in bytes of a file that says a tolerance.
pub const CALIBRATION_BYTES_MAX: u64 = 1 << 20;
/// Memory in bytes that the determinism lint fills before a run that must not see it.
pub const LINT_FILL_BYTES_MAX: u64 = 256 << 20;
/// Length in bytes of what the lint gives to another process: a module, models and a sample.
pub const LINT_WORK_BYTES_MAX: usize = 6 << 30;
/// Length in bytes of what that process answers: its runs' outputs and logs.
pub const LINT_ANSWER_BYTES_MAX: usize = 5 << 30;
/// Stack in bytes of a thread that runs tasks.
pub const EXECUTOR_STACK_BYTES: usize = TASK_STACK_BYTES + (1 << 20);

/// Open HTTP connections; one more is told so and closed. Half of what most systems let a process have open, so that
/// connections which nobody has to prove anything for leave the journal and the store theirs.
pub const HTTP_CONNECTIONS_MAX: usize = 512;
/// HTTP requests that may be answered at a time; one more is told to come back.
pub const HTTP_REQUESTS_MAX: usize = 1024;
/// Streams of events that may be open at a time.
pub const HTTP_EVENT_STREAMS_MAX: usize = 256;
/// Length in bytes of the head of an HTTP request.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of an HTTP request, in number.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Time in milliseconds for the head of an HTTP request, and that a connection may be idle.
pub const HTTP_HEAD_MS_MAX: u64 = 30_000;
/// Time in milliseconds between two pieces of a request's body.
pub const HTTP_BODY_STALL_MS_MAX: u64 = 30_000;
/// Time in milliseconds for the whole body of a request that is kept in memory.
pub const HTTP_BODY_MS_MAX: u64 = 60_000;
/// Length in bytes of a job as JSON: 64 digits a hash where its canonical form has 32 bytes, and white space.
pub const HTTP_JOB_BYTES_MAX: usize = 4 << 20;
/// Length in bytes of a signed statement about a name.
pub const HTTP_NAME_BYTES_MAX: usize = 4 << 10;
/// Length in bytes of a blob that is uploaded.
pub const HTTP_BLOB_BYTES_MAX: u64 = 16 << 30;
/// Time in milliseconds that open requests get to end when the gateway stops.
pub const HTTP_DRAIN_MS_MAX: u64 = 2_000;
/// Time in milliseconds after which an idle stream of events says that it is still there.
pub const HTTP_EVENT_IDLE_MS: u64 = 10_000;
/// Time in milliseconds that a scrape waits for the coordinator before it is answered with what is known.
pub const HTTP_SCRAPE_MS_MAX: u64 = 500;
/// Jobs in one list.
pub const HTTP_JOBS_LISTED_MAX: usize = 1000;
/// Length in bytes of a standard output that an answer carries; longer ones are fetched as results.
pub const HTTP_STDOUT_BYTES_MAX: u64 = 64 << 10;
/// Shards of a job whose records are read to tell how its tasks ended.
pub const HTTP_OUTCOMES_SHARDS_MAX: u32 = 1000;
/// Verdicts on modules, on models and manifests that are remembered, each kind.
pub const PREFLIGHT_VERDICTS_MAX: usize = 1024;
/// Modules and models that are checked at a time.
pub const PREFLIGHTS_MAX: usize = 2;
/// Answers that the client keeps in memory, in bytes.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 64 << 20;
/// Length in bytes of one event that the client reads.
pub const CLIENT_EVENT_BYTES_MAX: usize = 1 << 20;
/// Bytes that the blobs of one node may have together, unless its configuration says otherwise.
pub const STORE_BYTES_MAX: u64 = 20 << 30;
/// Tasks that one host may run at a time.
pub const HOST_SLOTS_MAX: u32 = 256;
/// Assignments that a host holds besides those that run.
pub const HOST_AHEAD_MAX: u32 = 256;
/// Memory in bytes that one task may have, unless the host's configuration says otherwise.
pub const TASK_MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Time in milliseconds for which a coordinator's ticket is good: it is written anew at each start.
pub const TICKET_MS: u64 = 30 * 24 * 3600 * 1000;

/// Postings that are read from the archive at a time.
pub const POSTINGS_PAGE_MAX: usize = 4096;
/// Length in bytes of an encoded posting.
pub const POSTING_BYTES_MAX: usize = 4096;
/// Length in bytes of an encoded invoice: a line for each of a million executions.
pub const INVOICE_BYTES_MAX: usize = 1 << 30;
/// Entries of a history that are read from the journal at a time.
pub const HISTORY_PAGE_MAX: usize = 1024;
/// Operators in one list.
pub const HTTP_OPERATORS_LISTED_MAX: usize = 10_000;
