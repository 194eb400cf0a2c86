//! Labels handwritten digits: the example of a task with a model.
//!
//! In: one digit a line, 64 comma-separated pixels from 0 to 16, row by row. Out: one label a line, in the same order.
//! The job declares the model under the name `digits`: f32 `[N, 64]` pixels to f32 `[N, 10]` scores.

use guest_sdk::{
    Exit,
    nn::{self, Context, Graph, Tensor},
};

const PIXELS: u32 = 64;
const LABELS: u32 = 10;
const PIXEL_MAX: u8 = 16;
/// One inference answers this many digits: enough to make the calls cheap, few enough for any host's quota.
const BATCH: usize = 256;

#[derive(Debug, PartialEq)]
enum Error {
    Pixels { line: usize, found: usize },
    Pixel { line: usize, text: String },
    Inference(nn::Error),
}

fn main() -> Exit {
    guest_sdk::text(label)
}

/// Text of digits to text of labels.
fn label(text: &str) -> Result<String, Error> {
    let digits = text.lines().enumerate().map(|(i, line)| parse(i + 1, line)).collect::<Result<Vec<_>, _>>()?;
    let mut context = Graph::by_name("digits")?.context()?;
    let mut labels = String::with_capacity(2 * digits.len());
    for batch in digits.chunks(BATCH) {
        for label in infer(&mut context, batch)? {
            labels.push(label);
            labels.push('\n');
        }
    }
    Ok(labels)
}

/// The 64 pixels of one line.
fn parse(line: usize, text: &str) -> Result<Vec<f32>, Error> {
    let pixel = |field: &str| match field.trim().parse::<u8>() {
        Ok(value) if value <= PIXEL_MAX => Ok(f32::from(value)),
        _ => Err(Error::Pixel { line, text: field.to_owned() }),
    };
    let pixels = text.split(',').map(pixel).collect::<Result<Vec<_>, _>>()?;
    if pixels.len() != PIXELS as usize {
        return Err(Error::Pixels { line, found: pixels.len() });
    }
    Ok(pixels)
}

/// One label a digit: the position of its highest score, the first of equals.
fn infer(context: &mut Context, batch: &[Vec<f32>]) -> Result<Vec<char>, Error> {
    let rows = batch.len() as u32; // At most BATCH.
    let pixels = Tensor::new(vec![rows, PIXELS], batch.concat())?;
    let scores: Tensor<f32> = context.infer(&pixels, &[rows, LABELS])?;
    let label = |scores: &[f32]| {
        ('0'..='9').zip(scores).fold(
            ('0', f32::NEG_INFINITY),
            |best, (label, score)| {
                if *score > best.1 { (label, *score) } else { best }
            },
        )
    };
    Ok(scores.rows().map(|scores| label(scores).0).collect())
}

impl From<nn::Error> for Error {
    fn from(error: nn::Error) -> Self {
        Self::Inference(error)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pixels { line, found } => write!(f, "line {line}: a digit has {PIXELS} pixels, not {found}"),
            Self::Pixel { line, text } => write!(f, "line {line}: a pixel is from 0 to {PIXEL_MAX}, not {text:?}"),
            Self::Inference(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use guest_sdk::{
        abi::nn::Errno,
        nn::{AnyTensor, stub},
    };

    use super::*;

    /// Scores each digit by its first pixel: label n for n below 10. Remembers no batch larger than the task promises.
    fn register_first_pixel() {
        stub::register("digits", |inputs| {
            let [input] = inputs else { return Err(Errno::InvalidArgument) };
            let pixels = input.typed::<f32>().unwrap();
            assert!(pixels.rows().count() <= BATCH, "{:?}", pixels.dims());
            let scores =
                pixels.rows().flat_map(|digit| (0..10u8).map(|n| f32::from(f32::from(n) == digit[0]))).collect();
            Ok(vec![AnyTensor::from(&Tensor::new(vec![pixels.dims()[0], 10], scores).unwrap())])
        });
    }

    fn digit(first: u32) -> String {
        format!("{first}{}\n", ",0".repeat(63))
    }

    #[test]
    fn digits_are_labelled_in_order_across_batches() {
        register_first_pixel();
        let input: String = (0..600).map(|i| digit(i % 10)).collect();
        let labels: String = (0..600).map(|i| format!("{}\n", i % 10)).collect();
        assert_eq!(label(&input).unwrap(), labels);
    }

    #[test]
    fn an_empty_shard_has_no_labels() {
        register_first_pixel();
        assert_eq!(label("").unwrap(), "");
    }

    #[test]
    fn a_line_that_is_no_digit_is_named() {
        let short = Error::Pixels { line: 2, found: 2 };
        assert_eq!(label(&format!("{}1,2\n", digit(1))), Err(short));
        assert_eq!(label(&digit(17)), Err(Error::Pixel { line: 1, text: "17".into() }));
    }

    #[test]
    fn a_job_without_the_model_is_told_so() {
        stub::clear();
        let error = label(&digit(1)).unwrap_err().to_string();
        assert_eq!(error, "wasi-nn load_by_name on digits: NotFound (errno 8)");
    }
}
