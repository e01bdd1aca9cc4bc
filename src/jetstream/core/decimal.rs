//! Whole numbers of any length, as counters have them.

use std::cmp::Ordering;
use std::fmt;

/// A whole number in decimal digits.
///
/// # Invariant
/// No leading zeros; zero has no digits and is not negative.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Lowest first.
    digits: Vec<u8>,
}

impl Decimal {
    /// Reads an optional sign and at least one digit.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let digits = digits.iter().rev().map(|digit| digit - b'0').collect();
        Some(Self { negative, digits }.normalised())
    }

    fn normalised(mut self) -> Self {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        self.negative &= !self.digits.is_empty();
        self
    }

    pub(crate) fn add(&self, other: &Self) -> Self {
        if self.negative == other.negative {
            return Self {
                negative: self.negative,
                digits: sum(&self.digits, &other.digits),
            };
        }
        let (larger, smaller) = match compare(&self.digits, &other.digits) {
            Ordering::Less => (other, self),
            _ => (self, other),
        };
        Self {
            negative: larger.negative,
            digits: difference(&larger.digits, &smaller.digits),
        }
        .normalised()
    }

    pub(crate) fn subtract(&self, other: &Self) -> Self {
        let mut opposite = other.clone();
        opposite.negative = !opposite.negative && !opposite.digits.is_empty();
        self.add(&opposite)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        let mut text = String::with_capacity(self.digits.len() + 1);
        if self.negative {
            text.push('-');
        }
        text.extend(self.digits.iter().rev().map(|d| char::from(b'0' + d)));
        f.write_str(&text)
    }
}

fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let by_length = one.len().cmp(&other.len());
    by_length.then_with(|| one.iter().rev().cmp(other.iter().rev()))
}

fn sum(one: &[u8], other: &[u8]) -> Vec<u8> {
    let length = one.len().max(other.len());
    let mut digits = Vec::with_capacity(length + 1);
    let mut carry = 0;
    for at in 0..length {
        let digit = |of: &[u8]| of.get(at).copied().unwrap_or(0);
        let total = digit(one) + digit(other) + carry;
        digits.push(total % 10);
        carry = total / 10;
    }
    if carry > 0 {
        digits.push(carry);
    }
    digits
}

/// `larger` must not be the smaller one.
fn difference(larger: &[u8], smaller: &[u8]) -> Vec<u8> {
    let mut digits = Vec::with_capacity(larger.len());
    let mut borrow = 0;
    for (at, digit) in larger.iter().enumerate() {
        let taken = smaller.get(at).copied().unwrap_or(0) + borrow;
        borrow = u8::from(*digit < taken);
        digits.push(digit + 10 * borrow - taken);
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Decimal;

    #[test]
    fn only_a_sign_and_digits_are_a_number() {
        for (text, expected) in [
            ("5", Some("5")),
            ("+5", Some("5")),
            ("-5", Some("-5")),
            ("-0", Some("0")),
            ("007", Some("7")),
            ("", None),
            ("-", None),
            ("+-5", None),
            ("5x", None),
            ("1_000", None),
            (
                "340282366920938463463374607431768211456",
                Some("340282366920938463463374607431768211456"),
            ),
        ] {
            let read = Decimal::parse(text.as_bytes()).map(|number| number.to_string());
            assert_eq!(read.as_deref(), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn sums_and_differences_are_those_of_integers(one: i64, other: i64) {
            let read = |number: i64| Decimal::parse(number.to_string().as_bytes()).expect("a number");
            let (left, right) = (i128::from(one), i128::from(other));
            prop_assert_eq!(read(one).add(&read(other)).to_string(), (left + right).to_string());
            prop_assert_eq!(
                read(one).subtract(&read(other)).to_string(),
                (left - right).to_string()
            );
        }
    }
}
