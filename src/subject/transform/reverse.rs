//! A transform turned round, and the forms between patterns and destinations that this needs.

use super::function::arguments;
use super::{Shape, Transform, TransformError};

impl Transform {
    /// The transform that undoes this one. It exists for those that [`Transform::reversible`] made.
    pub fn reversed(&self) -> Result<Transform, TransformError> {
        let (source, mut placeholders) = untokenized(&self.destination);
        let shape = Shape::of(&self.source).ok_or(TransformError::BadSubject)?;
        // The n-th wildcard of our source stands where the destination names it.
        let wanted = placeholders.len();
        let mut positions = vec![None; wanted];
        for (at, placeholder) in placeholders.drain(..).enumerate() {
            let number = usize::try_from(placeholder).ok();
            let slot = number.and_then(|number| positions.get_mut(number.checked_sub(1)?));
            *slot.ok_or(TransformError::BadSubject)? = Some(at + 1);
        }
        let mut positions = positions.into_iter();
        let mut tokens = Vec::with_capacity(shape.tokens.len());
        for token in &shape.tokens {
            if *token == "*" {
                let at = positions.next().flatten();
                tokens.push(format!("${}", at.ok_or(TransformError::BadSubject)?));
            } else {
                tokens.push((*token).to_owned());
            }
        }
        Transform::reversible(&source, &tokens.join("."))
    }
}

/// The destination that leaves what matches a pattern as it is: `foo.*.*` is `foo.$1.$2`.
pub fn tokenized(pattern: &str) -> String {
    let mut number = 0;
    let mut tokens = Vec::new();
    for token in pattern.split('.') {
        if token == "*" {
            number += 1;
            tokens.push(format!("${number}"));
        } else {
            tokens.push(token.to_owned());
        }
    }
    tokens.join(".")
}

/// The pattern of what a destination makes, and the numbers of the wildcards that it places, in its order: `foo.$2.$1` is `foo.*.*`
/// with 2 and 1.
pub fn untokenized(destination: &str) -> (String, Vec<i64>) {
    let mut numbers = Vec::new();
    let mut tokens = Vec::new();
    for token in destination.split('.') {
        let number = match token.strip_prefix('$') {
            Some(number) => number.parse().ok().filter(|number| *number > 0),
            None => arguments(token, "wildcard", &[0])
                .and_then(|number| number.trim_matches(' ').parse().ok()),
        };
        match number {
            Some(number) => {
                numbers.push(number);
                tokens.push("*");
            }
            None => tokens.push(token),
        }
    }
    (tokens.join("."), numbers)
}
