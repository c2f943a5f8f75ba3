//! The normal distribution's Φ and its inverse, as the BCa interval needs them.
//!
//! Φ by the series of G. Marsaglia, "Evaluating the Normal Distribution", Journal of Statistical Software 11 (2004);
//! the inverse by formula 26.2.23 of M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions" (1964), good to
//! 4.5·10⁻⁴, polished by Newton's method on Φ.

/// The probability that a standard normal variable is at most `x`.
#[must_use]
pub fn cdf(x: f64) -> f64 {
    // Beyond 8 the tail is below 10⁻¹⁵ and the series only adds rounding errors.
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let mut sum = x;
    let mut term = x;
    let mut odd = 1.0;
    loop {
        odd += 2.0;
        term *= x * x / odd;
        let next = sum + term;
        // A NaN is unequal to itself and must end the loop as well.
        if next == sum || next.is_nan() {
            return (0.5 + sum * density(x)).clamp(0.0, 1.0);
        }
        sum = next;
    }
}

fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

/// The value below which a standard normal variable lies with probability `p`; infinite at 0 and 1, NaN outside.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    if p == 0.5 {
        return 0.0;
    }
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    if p == 0.0 {
        return f64::NEG_INFINITY;
    }
    let t = (-2.0 * p.ln()).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let mut x = numerator / denominator - t;
    for _ in 0..3 {
        x -= (cdf(x) - p) / density(x);
    }
    x
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tabulated_values() {
        // Abramowitz and Stegun, table 26.1.
        for (x, p) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_543),
            (2.0, 0.977_249_868_051_821),
            (3.0, 0.998_650_101_968_370),
            (-1.0, 0.158_655_253_931_457),
        ] {
            assert!((cdf(x) - p).abs() < 1e-14, "{x}: {}", cdf(x));
        }
        // The usual critical values.
        assert!((quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-13);
        assert!((quantile(0.05) + 1.644_853_626_951_473).abs() < 1e-13);
    }

    #[test]
    fn the_ends() {
        assert_eq!(cdf(f64::INFINITY), 1.0);
        assert_eq!(cdf(-40.0), 0.0);
        assert!(cdf(f64::NAN).is_nan());
        assert_eq!(quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(quantile(1.0), f64::INFINITY);
        assert!(quantile(-0.1).is_nan());
        assert!(quantile(1.1).is_nan());
    }

    proptest! {
        #[test]
        fn the_inverse_inverts(p in 1e-5..0.99999f64) {
            prop_assert!((cdf(quantile(p)) - p).abs() < 1e-13);
        }
    }
}
