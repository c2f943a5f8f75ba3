//! Student's t distribution for whole degrees of freedom, as the expanded percentile interval needs it.
//!
//! M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions" (1964), formulas 26.7.3 and 26.7.4: with
//! θ = arctan(t/√ν) the probability between −t and t is a finite sum of powers of cos θ.

use std::f64::consts::FRAC_PI_2;

/// The value below which a t variable with `freedom` degrees of freedom lies with probability `p` in 0.5…1;
/// NaN for other `p` or without freedom.
#[must_use]
pub fn quantile(p: f64, freedom: u32) -> f64 {
    if !(0.5..=1.0).contains(&p) || freedom == 0 {
        return f64::NAN;
    }
    // θ has a bounded range and the probability grows with it, so halving always ends, at the last bit.
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    loop {
        let theta = (low + high) / 2.0;
        if theta <= low || theta >= high {
            return f64::from(freedom).sqrt() * theta.tan();
        }
        if 0.5 + between(theta, freedom) / 2.0 < p { low = theta } else { high = theta }
    }
}

/// The probability between −t and t, by t's angle.
fn between(theta: f64, freedom: u32) -> f64 {
    let (sine, cosine) = theta.sin_cos();
    let odd = freedom % 2 == 1;
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    let mut power = if odd { 3 } else { 2 };
    while power < freedom {
        term *= cosine * cosine * f64::from(power - 1) / f64::from(power);
        sum += term;
        power += 2;
    }
    if odd { (theta + sine * sum) / FRAC_PI_2 } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabulated_values() {
        // Abramowitz and Stegun, table 26.10, A = 0.95 (both tails together 5 %).
        for (freedom, t) in [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (29, 2.045)] {
            assert!((quantile(0.975, freedom) - t).abs() < 6e-4, "{freedom}: {}", quantile(0.975, freedom));
        }
        // A = 0.99, and the normal distribution as the limit.
        assert!((quantile(0.995, 5) - 4.032).abs() < 6e-4);
        assert!((quantile(0.975, 100_000) - 1.95999).abs() < 1e-4);
    }

    #[test]
    fn the_middle_and_what_is_undefined() {
        assert!(quantile(0.5, 7).abs() < 1e-12);
        assert!(quantile(0.4, 7).is_nan());
        assert!(quantile(0.9, 0).is_nan());
    }
}
