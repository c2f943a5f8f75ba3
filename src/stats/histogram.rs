//! Latency histograms: quantiles, merging, and the text in which they cross pipes and lie in files.
//!
//! G. Tene's HDR histogram keeps a stated number of significant digits over the whole range; its text form here is the
//! standard base64 of the "V2" encoding, which the HDR libraries of other languages read as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

/// Why a histogram cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistogramError {
    /// The text is not base64.
    #[error("a histogram's text is not base64")]
    Base64(#[source] base64::DecodeError),
    /// The bytes are not an HDR histogram.
    #[error("the text is base64, but not of a V2 HDR histogram")]
    Decode(#[source] hdrhistogram::serialization::DeserializeError),
    /// The histogram cannot be encoded.
    #[error("a histogram cannot be encoded")]
    Encode(#[source] hdrhistogram::serialization::V2SerializeError),
    /// The histogram does not fit into memory.
    #[error("histograms cannot be merged")]
    Merge(#[source] hdrhistogram::AdditionError),
}

/// The histogram as base64 text of the V2 encoding.
///
/// # Errors
/// When a count does not fit the encoding.
pub fn to_text(histogram: &Histogram<u64>) -> Result<String, HistogramError> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).map_err(HistogramError::Encode)?;
    Ok(STANDARD.encode(bytes))
}

/// Reads what [`to_text`] wrote; the histogram grows on demand like a new one.
///
/// # Errors
/// When the text is not base64, or not of a histogram.
pub fn from_text(text: &str) -> Result<Histogram<u64>, HistogramError> {
    let bytes = STANDARD.decode(text).map_err(HistogramError::Base64)?;
    let mut histogram: Histogram<u64> =
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(HistogramError::Decode)?;
    histogram.auto(true);
    Ok(histogram)
}

/// One histogram with the counts of all, in the precision of the first; `None` of none.
///
/// # Errors
/// When it would not fit into memory.
pub fn merge<'a>(
    histograms: impl IntoIterator<Item = &'a Histogram<u64>>,
) -> Result<Option<Histogram<u64>>, HistogramError> {
    let mut parts = histograms.into_iter();
    let Some(first) = parts.next() else { return Ok(None) };
    let mut merged = first.clone();
    merged.auto(true);
    for part in parts {
        merged.add(part).map_err(HistogramError::Merge)?;
    }
    Ok(Some(merged))
}

/// The quantile of `p` in 0…1: the greatest value that counts as equal to the recorded value of rank ⌈p n⌉;
/// `None` of an empty histogram or for `p` outside.
#[must_use]
pub fn quantile(histogram: &Histogram<u64>, p: f64) -> Option<f64> {
    (!histogram.is_empty() && (0.0..=1.0).contains(&p)).then(|| histogram.value_at_quantile(p) as f64)
}

/// The mean of the recorded values, to the histogram's precision; `None` of an empty one.
#[must_use]
pub fn mean(histogram: &Histogram<u64>) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.mean())
}

/// The sample standard deviation (divided by n − 1), to the histogram's precision; `None` below two values.
#[must_use]
pub fn stddev(histogram: &Histogram<u64>) -> Option<f64> {
    let count = histogram.len() as f64;
    (count > 1.0).then(|| histogram.stdev() * (count / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::quantile;

    fn of(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        histogram
    }

    #[test]
    fn what_is_missing_is_none() {
        let empty = of(&[]);
        assert_eq!((quantile(&empty, 0.5), mean(&empty), stddev(&empty)), (None, None, None));
        let one = of(&[7]);
        assert_eq!((quantile(&one, 0.5), mean(&one), stddev(&one)), (Some(7.0), Some(7.0), None));
        assert_eq!(quantile(&one, 2.0), None);
        assert!(merge([]).unwrap().is_none());
    }

    #[test]
    fn mean_and_spread_of_small_values_are_exact() {
        let histogram = of(&[2, 4, 4, 4, 5, 5, 7, 9]);
        assert_eq!(mean(&histogram), Some(5.0));
        assert!((stddev(&histogram).unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn merging_takes_any_range_and_precision() {
        let mut coarse = Histogram::new_with_bounds(1, 1_000_000_000, 2).unwrap();
        coarse.record(900_000_000).unwrap();
        let merged = merge([&of(&[1]), &coarse]).unwrap().unwrap();
        assert_eq!((merged.len(), merged.min()), (2, 1));
        assert!((merged.max() as f64 / 9e8 - 1.0).abs() < 0.01);
    }

    #[test]
    fn text_that_is_no_histogram_is_refused() {
        assert!(matches!(from_text("not base64!"), Err(HistogramError::Base64(_))));
        assert!(matches!(from_text("AAAAAAAA"), Err(HistogramError::Decode(_))));
        let whole = to_text(&of(&[1, 1000, 1_000_000])).unwrap();
        assert!(matches!(from_text(&whole[..whole.len() - 8]), Err(HistogramError::Decode(_))));
    }

    proptest! {
        #[test]
        fn text_holds_everything(values in prop::collection::vec(0..10_000_000_000u64, 0..60)) {
            let histogram = of(&values);
            let mut back = from_text(&to_text(&histogram).unwrap()).unwrap();
            prop_assert_eq!(&back, &histogram);
            back.record(u64::MAX / 4).unwrap();
        }

        #[test]
        fn quantiles_keep_three_digits(values in prop::collection::vec(1..10_000_000_000u64, 1..60)) {
            let merged = merge(values.iter().map(|v| of(&[*v])).collect::<Vec<_>>().iter()).unwrap().unwrap();
            prop_assert_eq!(merged.len(), values.len() as u64);
            let mut sorted: Vec<f64> = values.iter().map(|v| *v as f64).collect();
            quantile::sort(&mut sorted);
            let exact = sorted[sorted.len().div_ceil(2) - 1];
            prop_assert!((quantile(&merged, 0.5).unwrap() / exact - 1.0).abs() <= 1e-3);
        }
    }
}
