//! Numbers that look random and are the same for the same seed on every machine: only whole numbers and the four operations.

use crate::random::SplitMix64;

#[derive(Clone)]
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(SplitMix64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635))
    }

    /// One that goes its own way from here, so that more of one thing doesn't change another.
    pub(crate) fn fork(&mut self) -> Random {
        Random(SplitMix64(self.next()))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// From 0 up to, but not, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// Both ends included.
    pub(crate) fn whole(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from + 1) as u64) as i64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.whole(0, of.len() as i64 - 1) as usize]
    }

    /// About normal: the sum of twelve units; one in fifty is twice as far out, so that tails are fat.
    pub(crate) fn normal(&mut self) -> f64 {
        let z: f64 = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        if self.chance(0.02) { 2.0 * z } else { z }
    }

    /// Around 1, by factors.
    pub(crate) fn factor(&mut self, spread: f64) -> f64 {
        exp((spread * self.normal()).clamp(-5.0, 5.0))
    }

    /// A count with this mean: Poisson where it is small, and about that where it is large.
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 30.0 {
            let spread = mean.sqrt();
            return (mean + spread * self.normal()).max(0.0) as u64;
        }
        let (end, mut product, mut count) = (exp(-mean), self.unit(), 0);
        while product > end {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

/// By multiplication alone: the machine's own may differ in the last bit. `x` from -40 to 40.
pub(crate) fn exp(x: f64) -> f64 {
    let mut power = 1.0 + x / 4096.0;
    (0..12).for_each(|_| power *= power);
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_mean_and_factors_lie_around_one() {
        let mut random = Random::new(1);
        for mean in [0.5, 8.0, 500.0] {
            let sum: u64 = (0..10_000).map(|_| random.poisson(mean)).sum();
            let found = sum as f64 / 10_000.0;
            assert!((found / mean - 1.0).abs() < 0.05, "{found} instead of {mean}");
        }
        let above = (0..10_000).filter(|_| random.factor(0.8) > 1.0).count();
        assert!((4_700..5_300).contains(&above), "{above}");
        assert!((exp(1.0) - std::f64::consts::E).abs() < 0.001);
    }
}
