//! Tensors: a shape and its elements, in row-major order.
//!
//! [`Tensor`] knows its element type and is what a task works with. [`AnyTensor`] is what crosses the sandbox wall: the
//! type as a number, the elements as little-endian bytes. Copying between the two keeps this crate free of pointer
//! casts; next to an inference the copy does not show.

use super::{Error, F16};
use crate::abi::nn::TensorType;

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can be an element of a tensor: [`F16`], `f32`, `f64`, `u8`, `i32`, `i64`.
pub trait Element: Copy + sealed::Sealed {
    /// Its number in wasi-nn.
    const TYPE: TensorType;

    /// The elements as little-endian bytes.
    fn to_bytes(elements: &[Self]) -> Vec<u8>;

    /// The elements of these little-endian bytes; a last incomplete one is left out.
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! element {
    ($($rust:ty => $kind:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}

        impl Element for $rust {
            const TYPE: TensorType = TensorType::$kind;

            fn to_bytes(elements: &[Self]) -> Vec<u8> {
                elements.iter().flat_map(|element| element.to_le_bytes()).collect()
            }

            fn from_bytes(bytes: &[u8]) -> Vec<Self> {
                let (elements, _) = bytes.as_chunks();
                elements.iter().map(|element| <$rust>::from_le_bytes(*element)).collect()
            }
        }
    )*};
}

impl sealed::Sealed for F16 {}

impl Element for F16 {
    const TYPE: TensorType = TensorType::F16;

    fn to_bytes(elements: &[Self]) -> Vec<u8> {
        elements.iter().flat_map(|element| element.0.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Vec<Self> {
        let (elements, _) = bytes.as_chunks();
        elements.iter().map(|element| Self(u16::from_le_bytes(*element))).collect()
    }
}

element! { f32 => F32, f64 => F64, u8 => U8, i32 => I32, i64 => I64 }

/// A shape and exactly as many elements as it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    dims: Vec<u32>,
    data: Vec<T>,
}

impl<T: Element> Tensor<T> {
    /// A tensor of this shape. No dimensions make a scalar, of one element.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shape does not take exactly these elements.
    pub fn new(dims: Vec<u32>, data: Vec<T>) -> Result<Self, Error> {
        let expected = elements_of(&dims)?;
        if data.len() != expected {
            return Err(Error::Shape { dims, expected, found: data.len() });
        }
        Ok(Self { dims, data })
    }

    /// Its shape.
    pub fn dims(&self) -> &[u32] {
        &self.dims
    }

    /// Its elements, the last dimension fastest.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// Its elements, without the shape.
    pub fn into_data(self) -> Vec<T> {
        self.data
    }

    /// The slices along the first dimension: of a `[N, 10]` tensor, `N` times 10 elements.
    ///
    /// A tensor without elements has none, whatever its shape.
    pub fn rows(&self) -> impl Iterator<Item = &[T]> {
        let rows = self.dims.first().map_or(1, |rows| *rows as usize).max(1);
        self.data.chunks((self.data.len() / rows).max(1))
    }
}

/// A tensor as it crosses the sandbox wall: its element type is a value, its elements are little-endian bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct AnyTensor {
    /// Its shape.
    pub dims: Vec<u32>,
    /// The type of its elements.
    pub kind: TensorType,
    /// Its elements.
    pub bytes: Vec<u8>,
}

impl AnyTensor {
    /// The tensor with its elements as Rust values.
    ///
    /// # Errors
    /// [`Error::Type`] when they are of another type, [`Error::Shape`] when they do not fill the shape.
    pub fn typed<T: Element>(&self) -> Result<Tensor<T>, Error> {
        if self.kind != T::TYPE {
            return Err(Error::Type { expected: T::TYPE, found: self.kind });
        }
        Tensor::new(self.dims.clone(), T::from_bytes(&self.bytes))
    }
}

impl<T: Element> From<&Tensor<T>> for AnyTensor {
    fn from(tensor: &Tensor<T>) -> Self {
        Self { dims: tensor.dims.clone(), kind: T::TYPE, bytes: T::to_bytes(&tensor.data) }
    }
}

impl std::fmt::Debug for AnyTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnyTensor({:?} {:?}, {} bytes)", self.kind, self.dims, self.bytes.len())
    }
}

/// Elements of a shape.
fn elements_of(dims: &[u32]) -> Result<usize, Error> {
    dims.iter()
        .try_fold(1usize, |product, dim| product.checked_mul(usize::try_from(*dim).ok()?))
        .ok_or_else(|| Error::ShapeTooLarge { dims: dims.to_vec() })
}

/// Bytes of a shape; at most what a `Vec` can hold.
pub(super) fn bytes_of(kind: TensorType, dims: &[u32]) -> Result<usize, Error> {
    elements_of(dims)?
        .checked_mul(kind.element_bytes())
        .filter(|bytes| isize::try_from(*bytes).is_ok())
        .ok_or_else(|| Error::ShapeTooLarge { dims: dims.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_as_many_elements_as_its_shape() {
        assert_eq!(Tensor::new(vec![2, 3], vec![0u8; 6]).unwrap().rows().count(), 2);
        assert_eq!(Tensor::new(vec![], vec![7i64]).unwrap().rows().collect::<Vec<_>>(), [[7]]);
        assert_eq!(Tensor::<f32>::new(vec![0, 64], vec![]).unwrap().rows().count(), 0);
        assert_eq!(
            Tensor::new(vec![2, 3], vec![0u8; 5]),
            Err(Error::Shape { dims: vec![2, 3], expected: 6, found: 5 })
        );
    }

    #[test]
    fn a_shape_past_the_address_space_is_an_error_not_a_wrap() {
        let dims = vec![u32::MAX; 3];
        assert_eq!(Tensor::<u8>::new(dims.clone(), vec![]), Err(Error::ShapeTooLarge { dims }));
        assert!(bytes_of(TensorType::F64, &[1 << 31, 1 << 30]).is_err());
    }

    #[test]
    fn elements_keep_their_bits_across_the_wall() {
        let nan = f32::from_bits(0x7fc0_1234);
        let tensor = Tensor::new(vec![3], vec![nan, -0.0, f32::MIN_POSITIVE]).unwrap();
        let back = AnyTensor::from(&tensor).typed::<f32>().unwrap();
        let bits = |t: &Tensor<f32>| t.data().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&tensor));
        assert_eq!(
            AnyTensor::from(&tensor).typed::<i32>(),
            Err(Error::Type { expected: TensorType::I32, found: TensorType::F32 })
        );
    }
}
