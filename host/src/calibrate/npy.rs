//! Tensors in files of NumPy: the format that `numpy.save` writes, versions 1 to 3, in C order with the little end first.

use guest_sdk::abi::nn::TensorType;

use crate::{limits, sandbox::NnTensor};

/// Why bytes are no tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// Not such a file at all.
    #[error("not a file of numpy.save (.npy, version 1 to 3)")]
    Magic,
    /// The header says something that tensors do not have.
    #[error("{what} `{found}` is not supported: {expected}")]
    Header {
        /// Which part.
        what: &'static str,
        /// As found.
        found: String,
        /// What is.
        expected: &'static str,
    },
    /// The data is not as long as type and shape say.
    #[error("data has {found} bytes, and type and shape take {expected}")]
    Length {
        /// As found.
        found: usize,
        /// As computed; none when no computer has as many.
        expected: String,
    },
}

/// Types by their names in NumPy.
const TYPES: [(&str, TensorType); 7] = [
    ("<f2", TensorType::F16),
    ("<f4", TensorType::F32),
    ("<f8", TensorType::F64),
    ("|u1", TensorType::U8),
    ("<u1", TensorType::U8),
    ("<i4", TensorType::I32),
    ("<i8", TensorType::I64),
];

/// The tensor in these bytes.
///
/// # Errors
/// Says what about them is not supported.
pub fn read(bytes: &[u8]) -> Result<NnTensor, NpyError> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(NpyError::Magic)?;
    let (version, rest) = rest.split_at_checked(2).ok_or(NpyError::Magic)?;
    let (len, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_le_bytes(*len)), rest)),
        2 | 3 => rest.split_first_chunk().map(|(len, rest)| (u32::from_le_bytes(*len) as usize, rest)),
        _ => None,
    }
    .ok_or(NpyError::Magic)?;
    let (header, data) = rest.split_at_checked(len).ok_or(NpyError::Magic)?;
    let header = std::str::from_utf8(header).map_err(|_| NpyError::Magic)?;
    let descr = value(header, "descr")?.trim_matches(['\'', '"']);
    let element = TYPES.into_iter().find(|(name, _)| *name == descr).map(|(_, element)| element);
    let expected = "store it as one of <f2 <f4 <f8 |u1 <i4 <i8";
    let element = element.ok_or_else(|| refused("type", descr, expected))?;
    let order = value(header, "fortran_order")?;
    if order != "False" {
        return Err(refused("order", order, "store it in C order, with numpy.ascontiguousarray"));
    }
    let dims = dims(value(header, "shape")?)?;
    let elements = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim as usize));
    let expected = elements.and_then(|elements| elements.checked_mul(element.element_bytes()));
    if expected != Some(data.len()) {
        let expected = expected.map_or_else(|| "more than there are".to_owned(), |bytes| bytes.to_string());
        return Err(NpyError::Length { found: data.len(), expected });
    }
    Ok(NnTensor { element: element as u8, dims, data: data.to_vec().into() })
}

fn refused(what: &'static str, found: &str, expected: &'static str) -> NpyError {
    NpyError::Header { what, found: found.chars().take(40).collect(), expected }
}

/// The text of a value of the header, which is a dictionary as Python prints it.
fn value<'a>(header: &'a str, key: &'static str) -> Result<&'a str, NpyError> {
    let missing = || refused("header", header, "it has to name descr, fortran_order and shape");
    let quoted = [format!("'{key}':"), format!("\"{key}\":")];
    let after = quoted.iter().find_map(|key| header.split_once(key.as_str())).ok_or_else(missing)?.1.trim_start();
    let end = match after.strip_prefix('(') {
        Some(inside) => inside.find(')').map(|at| at + 2),
        None => after.find([',', '}']),
    };
    end.and_then(|end| after.get(..end)).map(str::trim).ok_or_else(missing)
}

fn dims(shape: &str) -> Result<Vec<u32>, NpyError> {
    let unknown = || refused("shape", shape, "at most as many whole numbers as a tensor has dimensions");
    let inside = shape.strip_prefix('(').and_then(|shape| shape.strip_suffix(')')).ok_or_else(unknown)?;
    let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    let dims = parts.map(|part| part.parse().map_err(|_| unknown())).collect::<Result<Vec<u32>, _>>()?;
    if dims.len() > limits::NN_RANK_MAX as usize { Err(unknown()) } else { Ok(dims) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let len = match version {
            1 => (header.len() as u16).to_le_bytes().to_vec(),
            _ => (header.len() as u32).to_le_bytes().to_vec(),
        };
        [b"\x93NUMPY", &[version, 0][..], &len, header.as_bytes(), data].concat()
    }

    #[test]
    fn what_numpy_writes_is_read() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }          \n";
        let tensor = read(&file(1, header, &[0, 0, 128, 63, 0, 0, 0, 64])).unwrap();
        assert_eq!((tensor.element_type(), tensor.dims), (Some(TensorType::F32), vec![1, 2]));
        let scalar = "{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n";
        assert_eq!(read(&file(2, scalar, &[0; 8])).unwrap().dims, Vec::<u32>::new());
        let one = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n";
        assert_eq!(read(&file(3, one, b"abc")).unwrap().dims, [3]);
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let header = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")
        };
        let said = |header: &str, data: &[u8]| read(&file(1, header, data)).unwrap_err().to_string();
        assert!(said(&header(">f4", "False", "(1,)"), &[0; 4]).starts_with("type `>f4` is not supported"));
        assert!(said(&header("<f4", "True", "(1,)"), &[0; 4]).contains("ascontiguousarray"));
        assert!(said(&header("<f4", "False", "(-1,)"), &[0; 4]).starts_with("shape"));
        assert!(said(&header("<f4", "False", "(2,)"), &[0; 4]).contains("4 bytes, and type and shape take 8"));
        let huge = header("<f4", "False", "(4294967295, 4294967295, 4294967295)");
        assert!(said(&huge, &[]).contains("more than there are"));
        assert!(said("{}", &[]).starts_with("header"));
        assert_eq!(read(b"PK\x03\x04"), Err(NpyError::Magic));
    }

    proptest! {
        #[test]
        fn arbitrary_headers_are_refused_and_never_panic(header in ".{0,80}", data in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = read(&file(1, &header, &data));
            let _ = read(&data);
        }
    }
}
