// SPDX-License-Identifier: GPL-2.0

//! Measured figures, as lines `# TAG: NAME VALUE UNIT AIM [SPREAD]`, and their aims.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use anyhow::{bail, Context, Error, Result};

/// The aim of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
    /// None: the figure is only shown.
    Shown,
}

impl Aim {
    /// Returns whether a figure of that value meets the aim.
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(max) => value <= max,
            Self::AtLeast(least) => value >= least,
            Self::Exactly(exact) => value == exact,
            Self::Shown => true,
        }
    }

    /// Returns whether `one` is farther from the aim than `other`. Without an aim the larger one is worse.
    pub fn is_worse(self, one: f64, other: f64) -> bool {
        match self {
            Self::AtMost(_) | Self::Shown => one > other,
            Self::AtLeast(_) => one < other,
            Self::Exactly(exact) => (one - exact).abs() > (other - exact).abs(),
        }
    }
}

impl FromStr for Aim {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse().with_context(|| format!("the aim {text}"));
        Ok(if text == "-" {
            Self::Shown
        } else if let Some(max) = text.strip_prefix("<=") {
            Self::AtMost(number(max)?)
        } else if let Some(least) = text.strip_prefix(">=") {
            Self::AtLeast(number(least)?)
        } else if let Some(exact) = text.strip_prefix('=') {
            Self::Exactly(number(exact)?)
        } else {
            bail!("{text} is not an aim: <=X, >=X, =X or -")
        })
    }
}

impl Display for Aim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(max) => write!(f, "<= {max}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::Exactly(exact) => write!(f, "= {exact}"),
            Self::Shown => f.write_str("-"),
        }
    }
}

/// A printed figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub aim: Aim,
    /// Half of the distance between the quartiles of several measurements, relative to their median.
    pub spread: Option<f64>,
}

impl FromStr for Figure {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fields: Vec<_> = text.split_whitespace().collect();
        let (name, value, unit, aim, spread) = match fields[..] {
            [name, value, unit, aim] => (name, value, unit, aim, None),
            [name, value, unit, aim, spread] => (name, value, unit, aim, Some(spread)),
            _ => bail!("not NAME VALUE UNIT AIM [SPREAD]: {text}"),
        };
        let number = |text: &str| text.parse().with_context(|| format!("the number {text}"));
        Ok(Self {
            name: name.to_owned(),
            value: number(value)?,
            unit: unit.to_owned(),
            aim: aim.parse()?,
            spread: spread.map(number).transpose()?,
        })
    }
}

/// Returns the figures in a text, with this tag.
pub fn figures<'a>(text: &'a str, tag: &'a str) -> impl Iterator<Item = Result<Figure>> + 'a {
    let lines = text.lines().filter_map(move |line| {
        let line = line.trim_start().strip_prefix('#')?.trim_start();
        line.strip_prefix(tag)?.strip_prefix(": ")
    });
    lines.map(str::parse)
}

/// Formats a value for a reader: JSON has all digits.
pub fn rounded(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value}"),
        0.0..10.0 => format!("{value:.4}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_tag() {
        let text = "    # trust: a 1 ratio <=2\n# bench: b 2.5 ns - 0.01\nbench: c\n# bench d\n";
        let figures: Vec<_> = figures(text, "bench").map(Result::unwrap).collect();
        let expected = Figure {
            name: "b".to_owned(),
            value: 2.5,
            unit: "ns".to_owned(),
            aim: Aim::Shown,
            spread: Some(0.01),
        };
        assert_eq!(figures, [expected]);
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused() {
        for text in [
            "held 1 ratio",
            "held 1 ratio ~1",
            "held one ratio -",
            "held 1 ratio - x",
        ] {
            assert!(text.parse::<Figure>().is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_rounded_for_readers() {
        let rounded = [3.0, 1.0103361, 87.1497, 1_000_000.0].map(rounded);
        assert_eq!(rounded, ["3", "1.0103", "87.1", "1000000"]);
    }

    #[test]
    fn aims_are_inclusive() {
        for (aim, met, missed) in [("<=2", 2.0, 2.1), (">=2", 2.0, 1.9), ("=2", 2.0, 3.0)] {
            let aim: Aim = aim.parse().unwrap();
            assert!(aim.is_met_by(met) && !aim.is_met_by(missed), "{aim}");
        }
    }

    #[test]
    fn a_value_farther_from_an_aim_is_worse() {
        for (aim, worse, better) in [(">=2", 1.0, 3.0), ("=2", 4.0, 1.0), ("-", 2.0, 1.0)] {
            let aim: Aim = aim.parse().unwrap();
            assert!(
                aim.is_worse(worse, better) && !aim.is_worse(better, worse),
                "{aim}"
            );
        }
    }
}
