//! Mappings of an account: what is published to a pattern goes to one of several destinations, by weight.

use thiserror::Error;

use super::reverse::tokenized;
use super::{Transform, TransformError};
use crate::subject::is_valid_subject;

/// All weights of a mapping together.
const WEIGHT_TOTAL: u32 = 100;

/// Where a part of what matches goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The transform's destination.
    pub subject: String,
    /// How many of a hundred messages.
    pub weight: u32,
    /// In this cluster only.
    pub cluster: Option<String>,
}

/// Why there is no such mapping.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MappingError {
    /// The source is no pattern.
    #[error("invalid subject")]
    BadSource,
    /// A destination is named twice.
    #[error("duplicate entry for {0:?}")]
    Duplicate(String),
    /// More than a hundred of a hundred.
    #[error("individual weights need to be <= 100")]
    WeightTooLarge,
    /// All together more than a hundred of a hundred.
    #[error("total weight needs to be <= 100")]
    TotalTooLarge,
    /// A destination does not go with the source.
    #[error(transparent)]
    Transform(#[from] TransformError),
}

/// Destinations with the weights of all before them added, and which cluster they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Choice {
    cluster: Option<String>,
    options: Vec<(u32, Transform)>,
}

/// One source and its destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    source: String,
    choices: Vec<Choice>,
}

impl Mapping {
    /// Everything that matches the source goes to one destination.
    pub fn simple(source: &str, destination: &str) -> Result<Self, MappingError> {
        let destination = Destination {
            subject: destination.to_owned(),
            weight: WEIGHT_TOTAL,
            cluster: None,
        };
        Self::new(source, &[destination])
    }

    /// What the weights leave goes where it was published to, unless that is one of the destinations: then it is lost.
    pub fn new(source: &str, destinations: &[Destination]) -> Result<Self, MappingError> {
        if !is_valid_subject(source) {
            return Err(MappingError::BadSource);
        }
        let mut choices = vec![Choice {
            cluster: None,
            options: Vec::new(),
        }];
        for (at, destination) in destinations.iter().enumerate() {
            let before = destinations.iter().take(at);
            if before
                .clone()
                .any(|other| other.subject == destination.subject)
            {
                return Err(MappingError::Duplicate(destination.subject.clone()));
            }
            if destination.weight > WEIGHT_TOTAL {
                return Err(MappingError::WeightTooLarge);
            }
            let same = before.filter(|other| other.cluster == destination.cluster);
            if same.map(|other| other.weight).sum::<u32>() + destination.weight > WEIGHT_TOTAL {
                return Err(MappingError::TotalTooLarge);
            }
            let transform = Transform::for_mapping(source, &destination.subject)?;
            let option = (destination.weight, transform);
            match choices
                .iter_mut()
                .find(|choice| choice.cluster == destination.cluster)
            {
                Some(choice) => choice.options.push(option),
                None => choices.push(Choice {
                    cluster: destination.cluster.clone(),
                    options: vec![option],
                }),
            }
        }
        let keeps = !destinations
            .iter()
            .any(|destination| destination.subject == source);
        for choice in &mut choices {
            choice.complete(source, keeps)?;
        }
        Ok(Self {
            source: source.to_owned(),
            choices,
        })
    }

    /// What is mapped.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Where it goes, and up to which number below 100: first what holds in every cluster that is not named, and for each with the weights of all before it.
    pub fn shown(&self) -> impl Iterator<Item = Destination> {
        let destinations = |choice: &'_ Choice| {
            let shown = choice
                .options
                .iter()
                .map(|(weight, transform)| Destination {
                    subject: transform.destination().to_owned(),
                    weight: *weight,
                    cluster: choice.cluster.clone(),
                });
            shown.collect::<Vec<_>>()
        };
        self.choices.iter().flat_map(destinations)
    }

    /// The transform for a number below 100, on a server of this cluster; `None` loses the message.
    fn pick(&self, cluster: Option<&str>, drawn: u32) -> Option<&Transform> {
        let own = self
            .choices
            .iter()
            .find(|choice| choice.cluster.is_some() && choice.cluster.as_deref() == cluster);
        let choice = own.or_else(|| self.choices.first())?;
        let option = choice.options.iter().find(|(weight, _)| drawn < *weight);
        option.map(|(_, transform)| transform)
    }

    /// Whether one destination gets everything.
    fn is_certain(&self) -> bool {
        matches!(self.choices.as_slice(), [choice] if matches!(choice.options.as_slice(), [(WEIGHT_TOTAL, _)]))
    }
}

impl Choice {
    /// Adds what is left for the source itself, and sums the weights up.
    fn complete(&mut self, source: &str, keeps: bool) -> Result<(), TransformError> {
        let total: u32 = self.options.iter().map(|(weight, _)| weight).sum();
        if total != WEIGHT_TOTAL && keeps {
            let same = Transform::new(source, &tokenized(source))?;
            self.options.push((WEIGHT_TOTAL - total, same));
        }
        self.options.sort_by_key(|(weight, _)| *weight);
        let mut sum = 0;
        for (weight, _) in &mut self.options {
            sum += *weight;
            *weight = sum;
        }
        Ok(())
    }
}

/// The mappings of an account, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    all: Vec<Mapping>,
}

/// What became of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// No mapping is for it.
    Unchanged,
    /// The new subject is in the buffer.
    To,
    /// No destination takes it: nobody is to get it.
    Lost,
}

impl Mappings {
    /// Adds one, in the place of another with the same source.
    pub fn add(&mut self, mapping: Mapping) {
        match self
            .all
            .iter_mut()
            .find(|known| known.source == mapping.source)
        {
            Some(known) => *known = mapping,
            None => self.all.push(mapping),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.all.iter()
    }

    /// Where a message for this subject goes, on a server of this cluster. The first mapping that matches is the one.
    pub fn map(
        &self,
        subject: &[u8],
        cluster: Option<&str>,
        random: &mut dyn FnMut() -> u32,
        out: &mut Vec<u8>,
    ) -> Mapped {
        let matches =
            |mapping: &&Mapping| crate::subject::subject_matches(subject, &mapping.source);
        let Some(mapping) = self.all.iter().find(matches) else {
            return Mapped::Unchanged;
        };
        let drawn = match mapping.is_certain() {
            true => 0,
            // High bits, as multiplication spreads them evenly below 100.
            false => ((u64::from(random()) * u64::from(WEIGHT_TOTAL)) >> 32) as u32,
        };
        match mapping.pick(cluster, drawn) {
            Some(transform) if transform.apply(subject, random, out).is_ok() => Mapped::To,
            _ => Mapped::Lost,
        }
    }
}
