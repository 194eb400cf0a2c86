//! Tells which images of a line of text are upside down: the example of images and batches, with PaddleOCR's classifier.
//!
//! In: names of PNG files under `/in`, one a line; without any, all of them. Out: one line an image, its fields separated by
//! tabs: name, `0` or `180`, score.
//!
//! The job declares the model under the name `orient`: f32 `[N, 3, 48, 192]` to f32 `[N, 2]`. Pixels come to the model as
//! rapidocr-onnxruntime 1.4.4 and the OpenCV under it bring them there: transparency, the order of colours, and the
//! rounding of the resized image are theirs.

use std::{fmt, fs, io, path::Path};

use guest_sdk::{
    Exit,
    nn::{self, Context, Graph, Tensor},
};
use png::{BitDepth, ColorType, Decoder, Transformations};

const HEIGHT: usize = 48;
const WIDTH: usize = 192;
const CHANNELS: usize = 3;
const LABELS: [&str; 2] = ["0", "180"];
/// Images of one inference, as in the package. What is left after whole batches goes one by one.
const BATCH: usize = 6;
/// Bytes of pixels that an image may have.
const IMAGE_BYTES_MAX: usize = 64 << 20;

/// Blue, green and red, row by row.
#[derive(Debug, PartialEq)]
struct Image {
    width: usize,
    height: usize,
    pixels: Vec<[u8; CHANNELS]>,
}

fn main() -> Exit {
    guest_sdk::text(|list| run(Path::new(guest_sdk::abi::DIR_IN), list))
}

/// A list of files to lines.
fn run(dir: &Path, list: &str) -> Result<String, Error> {
    let files = guest_sdk::files_of(dir, list)?;
    let mut context = Graph::by_name("orient")?.context()?;
    let mut lines = String::new();
    let (batches, single) = files.split_at(files.len() - files.len() % BATCH);
    for batch in batches.chunks(BATCH).chain(single.chunks(1)) {
        let mut planes = Vec::with_capacity(batch.len() * CHANNELS * HEIGHT * WIDTH);
        for file in batch {
            let unread = |what| Error::Image { name: file.name.clone(), what };
            planes.extend(normalised(&decode(&fs::read(&file.path)?).map_err(unread)?));
        }
        for (file, (label, score)) in batch.iter().zip(infer(&mut context, batch.len() as u32, planes)?) {
            lines.push_str(&format!("{}\t{label}\t{score}\n", file.name));
        }
    }
    Ok(lines)
}

/// Label and score of each image of a batch.
fn infer(context: &mut Context, rows: u32, planes: Vec<f32>) -> Result<Vec<(&'static str, f32)>, nn::Error> {
    let input = Tensor::new(vec![rows, CHANNELS as u32, HEIGHT as u32, WIDTH as u32], planes)?;
    let scores: Tensor<f32> = context.infer(&input, &[rows, LABELS.len() as u32])?;
    let best = |scores: &[f32]| {
        let pairs = LABELS.into_iter().zip(scores);
        pairs.fold(
            (LABELS[0], f32::NEG_INFINITY),
            |best, (label, score)| if *score > best.1 { (label, *score) } else { best },
        )
    };
    Ok(scores.rows().map(best).collect())
}

/// The pixels of a PNG file.
fn decode(file: &[u8]) -> Result<Image, NotImage> {
    let limits = png::Limits { bytes: IMAGE_BYTES_MAX };
    let mut decoder = Decoder::new_with_limits(io::Cursor::new(file), limits);
    // Grey of fewer bits becomes grey of eight.
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info()?;
    let info = reader.info();
    if info.color_type == ColorType::Indexed || info.bit_depth == BitDepth::Sixteen || info.trns.is_some() {
        return Err(NotImage::Kind);
    }
    let (width, height) = (info.width as usize, info.height as usize);
    let length = reader.output_buffer_size().filter(|length| *length <= IMAGE_BYTES_MAX).ok_or(NotImage::TooLarge)?;
    let mut bytes = vec![0; length];
    let frame = reader.next_frame(&mut bytes)?;
    bytes.truncate(frame.buffer_size());
    let pixels = match frame.color_type {
        ColorType::Grayscale => bytes.iter().map(|grey| [*grey; CHANNELS]).collect(),
        ColorType::Rgb => bytes.as_chunks().0.iter().map(|[red, green, blue]| [*blue, *green, *red]).collect(),
        ColorType::GrayscaleAlpha => {
            bytes.as_chunks().0.iter().map(|[grey, alpha]| over_white([*grey; 3], *alpha)).collect()
        }
        ColorType::Rgba => without_alpha(bytes.as_chunks().0),
        ColorType::Indexed => return Err(NotImage::Kind),
    };
    Ok(Image { width, height, pixels })
}

/// What is not there at all becomes black, then all is brightened by how much is not there.
fn over_white(pixel: [u8; CHANNELS], alpha: u8) -> [u8; CHANNELS] {
    pixel.map(|value| if alpha == 0 { 255 } else { value.saturating_add(255 - alpha) })
}

/// As the package does it: an image that is black where it is anything is put on white, any other one is inverted.
fn without_alpha(pixels: &[[u8; 4]]) -> Vec<[u8; CHANNELS]> {
    let seen = |[red, green, blue, alpha]: &[u8; 4]| if *alpha == 0 { [0; CHANNELS] } else { [*blue, *green, *red] };
    if pixels.iter().all(|pixel| seen(pixel) == [0; CHANNELS]) {
        pixels.iter().map(|pixel| over_white([0; CHANNELS], pixel[3])).collect()
    } else {
        pixels.iter().map(|pixel| seen(pixel).map(|value| 255 - value)).collect()
    }
}

/// The model's planes: resized to its height, from -1 to 1, with zeros right of it up to its width.
fn normalised(image: &Image) -> Vec<f32> {
    let ratio = image.width as f64 / image.height as f64;
    let width = ((HEIGHT as f64 * ratio).ceil() as usize).clamp(1, WIDTH);
    let resized = resized(image, width);
    let mut planes = vec![0.0; CHANNELS * HEIGHT * WIDTH];
    for (y, row) in resized.chunks(width).enumerate() {
        for (x, pixel) in row.iter().enumerate() {
            for (channel, value) in pixel.iter().enumerate() {
                planes[(channel * HEIGHT + y) * WIDTH + x] = (f32::from(*value) / 255.0 - 0.5) / 0.5;
            }
        }
    }
    planes
}

/// A place between two pixels of a row or column: both, and their weights, in parts of [`WHOLE`].
struct Between {
    pixels: [usize; 2],
    weights: [i32; 2],
}

/// OpenCV's scale of weights.
const WHOLE: f32 = 2048.0;

/// Where the pixels of a resized line lie in the old one. Weights at both ends are those of the line prolonged, unless `held`.
fn between(old: usize, new: usize, held: bool) -> Vec<Between> {
    let scale = 1.0 / (new as f64 / old as f64);
    let last = old - 1;
    let place = |at: usize| {
        let position = ((at as f64 + 0.5) * scale - 0.5) as f32;
        let mut before = position.floor() as isize;
        let mut part = position - before as f32;
        if held && (before < 0 || before as usize >= last) {
            before = before.clamp(0, last as isize);
            part = 0.0;
        }
        let pixel = |at: isize| at.clamp(0, last as isize) as usize;
        let weight = |part: f32| (part * WHOLE).round_ties_even() as i32;
        Between { pixels: [pixel(before), pixel(before + 1)], weights: [weight(1.0 - part), weight(part)] }
    };
    (0..new).map(place).collect()
}

/// Linear interpolation to [`HEIGHT`] rows, in whole numbers, rounded where OpenCV's `resize` rounds.
fn resized(image: &Image, width: usize) -> Vec<[u8; CHANNELS]> {
    if (image.width, image.height) == (width, HEIGHT) {
        return image.pixels.clone();
    }
    let columns = between(image.width, width, true);
    let rows = between(image.height, HEIGHT, false);
    let across = |y: usize| -> Vec<[i32; CHANNELS]> {
        let row = &image.pixels[y * image.width..][..image.width];
        let mix = |Between { pixels: [left, right], weights }: &Between| {
            std::array::from_fn(|at| i32::from(row[*left][at]) * weights[0] + i32::from(row[*right][at]) * weights[1])
        };
        columns.iter().map(mix).collect()
    };
    let mut resized = Vec::with_capacity(width * HEIGHT);
    for Between { pixels: [upper, lower], weights } in &rows {
        for (above, below) in across(*upper).iter().zip(&across(*lower)) {
            let part = |value: i32, weight: i32| (weight * (value >> 4)) >> 16;
            // Weights add up to the whole, so this stays within a byte.
            resized.push(std::array::from_fn(|at| {
                ((part(above[at], weights[0]) + part(below[at], weights[1]) + 2) >> 2) as u8
            }));
        }
    }
    resized
}

/// Why a file is no image for the model.
#[derive(Debug)]
enum NotImage {
    Png(png::DecodingError),
    Kind,
    TooLarge,
}

impl From<png::DecodingError> for NotImage {
    fn from(error: png::DecodingError) -> Self {
        Self::Png(error)
    }
}

#[derive(Debug)]
enum Error {
    Image { name: String, what: NotImage },
    Read(io::Error),
    Inference(nn::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<nn::Error> for Error {
    fn from(error: nn::Error) -> Self {
        Self::Inference(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { name, what: NotImage::Png(error) } => write!(f, "{name} is not a PNG file: {error}"),
            Self::Image { name, what: NotImage::Kind } => {
                write!(f, "{name} has a palette, a transparent colour or 16 bits: convert it to 8 bits a channel")
            }
            Self::Image { name, what: NotImage::TooLarge } => {
                write!(f, "{name} takes more than {IMAGE_BYTES_MAX} bytes: make it smaller")
            }
            Self::Read(error) => write!(f, "a file cannot be read: {error}"),
            Self::Inference(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(color: ColorType, depth: BitDepth, bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
        file
    }

    #[test]
    fn every_kind_of_pixel_becomes_blue_green_red() {
        let pixels = |color, bytes: &[u8]| decode(&encoded(color, BitDepth::Eight, bytes)).unwrap().pixels;
        assert_eq!(pixels(ColorType::Rgb, &[1, 2, 3, 4, 5, 6]), [[3, 2, 1], [6, 5, 4]]);
        assert_eq!(pixels(ColorType::Grayscale, &[7, 8]), [[7; 3], [8; 3]]);
        assert_eq!(pixels(ColorType::GrayscaleAlpha, &[100, 0, 100, 250]), [[255; 3], [105; 3]]);
        assert_eq!(pixels(ColorType::Rgba, &[0, 0, 0, 0, 0, 0, 0, 255]), [[255; 3], [0; 3]]);
        assert_eq!(pixels(ColorType::Rgba, &[1, 2, 3, 0, 1, 2, 3, 255]), [[255; 3], [252, 253, 254]]);
        let bits = decode(&encoded(ColorType::Grayscale, BitDepth::One, &[0b0100_0000])).unwrap();
        assert_eq!(bits.pixels, [[0; 3], [255; 3]]);
        let deep = decode(&encoded(ColorType::Grayscale, BitDepth::Sixteen, &[0; 4]));
        assert!(matches!(deep, Err(NotImage::Kind)), "{deep:?}");
        assert!(matches!(decode(b"not an image"), Err(NotImage::Png(_))));
    }

    #[test]
    fn resizing_keeps_flat_images_flat_and_mixes_neighbours() {
        let flat = Image { width: 5, height: 100, pixels: vec![[9, 99, 255]; 500] };
        assert!(resized(&flat, 3).iter().all(|pixel| *pixel == [9, 99, 255]));
        let half = Image { width: 2, height: 96, pixels: [[0; 3], [100; 3]].repeat(96) };
        assert!(resized(&half, 1).iter().all(|pixel| *pixel == [50; 3]));
        let planes = normalised(&half);
        assert_eq!((planes.len(), planes[WIDTH - 1]), (3 * 48 * 192, 0.0));
        assert!((planes[0] - (50.0 / 255.0 - 0.5) / 0.5).abs() < 1e-6);
    }
}
