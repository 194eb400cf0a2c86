//! What the examples run on. Sources and licences are in `data/README.md`.

/// The digit classifier, ONNX: `pixels` f32 `[N, 64]`, from 0 to 16, to `scores` f32 `[N, 10]`. Made by
/// `tools/train_digits.py`.
pub static DIGITS_MODEL: &[u8] = include_bytes!("../../data/digits/digits.onnx");
/// 1,797 handwritten digits: a line each, 64 comma-separated pixels from 0 to 16. The input of the task `digits`.
pub static DIGITS_PIXELS: &[u8] = include_bytes!("../../data/digits/pixels.csv");
/// What the digits are: a line each, `label,split`. The model was not trained on those whose split is `heldout`.
pub static DIGITS_LABELS: &[u8] = include_bytes!("../../data/digits/labels.csv");

/// Shakespeare's Hamlet.
pub static HAMLET: &[u8] = include_bytes!("../../data/text/hamlet.txt");
/// Shakespeare's Macbeth.
pub static MACBETH: &[u8] = include_bytes!("../../data/text/macbeth.txt");
/// Shakespeare's Sonnets.
pub static SONNETS: &[u8] = include_bytes!("../../data/text/sonnets.txt");
/// The texts by file name: inputs of the task `wordcount`.
pub static TEXTS: [(&str, &[u8]); 3] = [("hamlet.txt", HAMLET), ("macbeth.txt", MACBETH), ("sonnets.txt", SONNETS)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_has_its_pixels_and_its_label() {
        let lines = |bytes: &'static [u8]| std::str::from_utf8(bytes).unwrap().lines();
        assert_eq!(lines(DIGITS_PIXELS).count(), 1797);
        for pixels in lines(DIGITS_PIXELS) {
            let pixels: Vec<u8> = pixels.split(',').map(|pixel| pixel.parse().unwrap()).collect();
            assert!(pixels.len() == 64 && pixels.iter().all(|pixel| *pixel <= 16), "{pixels:?}");
        }
        let labels: Vec<_> = lines(DIGITS_LABELS).map(|line| line.split_once(',').unwrap()).collect();
        assert_eq!(labels.len(), 1797);
        assert_eq!(labels.iter().filter(|(_, split)| *split == "heldout").count(), 540);
        assert!(
            labels
                .iter()
                .all(|(label, split)| label.parse::<u8>().unwrap() < 10 && ["train", "heldout"].contains(split))
        );
    }

    #[test]
    fn texts_are_utf8_and_end_with_a_line() {
        for (name, text) in TEXTS {
            assert!(std::str::from_utf8(text).unwrap().ends_with('\n'), "{name}");
        }
    }
}
