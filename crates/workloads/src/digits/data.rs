//! Owns the data set: 1,797 images of 8x8 pixels, embedded, and how it is split.

use crate::Error;

/// Pixels of one image.
pub const PIXELS: usize = 64;
/// The digits 0 to 9.
pub const CLASSES: usize = 10;
/// Images held out for testing: every fifth one.
pub const TEST_IMAGES: usize = 360;
/// Images to train on.
pub const TRAIN_IMAGES: usize = 1_437;

const FILE: &str = "digits.csv";
const CSV: &str = include_str!("../../../../assets/digits.csv");

/// The images, training ones first.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// [`PIXELS`] numbers from 0 to 1 for each image.
    pub pixels: Vec<f32>,
    /// The digit each image shows.
    pub labels: Vec<u32>,
}

impl DataSet {
    /// Reads the embedded file; the first [`TRAIN_IMAGES`] are for training, the rest for testing.
    pub fn load() -> Result<Self, Error> {
        Self::parse(CSV)
    }

    fn parse(csv: &str) -> Result<Self, Error> {
        let images = csv
            .lines()
            .enumerate()
            .map(|(index, line)| image(index + 1, line))
            .collect::<Result<Vec<_>, _>>()?;
        if images.len() != TRAIN_IMAGES + TEST_IMAGES {
            let expected = TRAIN_IMAGES + TEST_IMAGES;
            let problem = format!("the file should end after {expected} images");
            return Err(broken(images.len(), problem));
        }
        let (test, train): (Vec<_>, Vec<_>) = images.iter().enumerate().partition(|(i, _)| i % 5 == 0);
        let ordered = || train.iter().chain(&test).map(|(_, image)| image);
        Ok(Self {
            pixels: ordered().flat_map(|(pixels, _)| *pixels).collect(),
            labels: ordered().map(|(_, label)| *label).collect(),
        })
    }
}

fn broken(line: usize, problem: String) -> Error {
    Error::Data { file: FILE, line, problem }
}

fn image(number: usize, line: &str) -> Result<([f32; PIXELS], u32), Error> {
    let values = line
        .split(',')
        .map(|field| field.trim().parse::<u32>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| broken(number, e.to_string()))?;
    let [pixels @ .., label] = values.as_slice() else {
        return Err(broken(number, "no values".into()));
    };
    if pixels.len() != PIXELS || *label >= CLASSES as u32 || pixels.iter().any(|p| *p > 16) {
        let problem = format!("expected {PIXELS} pixels from 0 to 16 and a digit");
        return Err(broken(number, problem));
    }
    Ok((std::array::from_fn(|i| pixels[i] as f32 / 16.0), *label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_splits_as_promised() {
        let data = DataSet::load().unwrap();
        assert_eq!(data.labels.len(), TRAIN_IMAGES + TEST_IMAGES);
        assert_eq!(data.pixels.len(), data.labels.len() * PIXELS);
        // Line 1 of the file is the first test image, line 2 the first training image.
        assert_eq!(data.labels[0], 1);
        assert_eq!(data.labels[TRAIN_IMAGES], 0);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = DataSet::parse("0,1,two\n").unwrap_err().to_string();
        assert!(error.starts_with("digits.csv, line 1: "), "{error}");
        let error = DataSet::parse("0,1,2\n").unwrap_err().to_string();
        assert!(error.contains("expected 64 pixels"), "{error}");
    }
}
