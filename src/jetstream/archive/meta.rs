//! `meta.inf`: the configuration of a stream or consumer, with when it was created.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::jetstream::types::{
    ConsumerConfig, StreamConfig, Strictness, Time, decode_value, encode, parse,
};

/// Why it cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MetaError(String);

/// What a stream is configured to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamMeta {
    /// When it was created.
    pub created: Time,
    /// Its configuration.
    pub config: StreamConfig,
}

/// What a consumer is configured to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerMeta {
    /// When it was created.
    pub created: Time,
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub config: ConsumerConfig,
}

impl StreamMeta {
    /// Reads it. A field that nobody knows is an error: what it asks for would be lost.
    pub fn read(bytes: &[u8]) -> Result<Self, MetaError> {
        let (created, _, mut config) = read::<StreamConfig>(bytes)?;
        config.set_stored_metadata();
        Ok(Self { created, config })
    }

    /// Writes it.
    pub fn write(&self) -> Vec<u8> {
        with_created(self.created, None, encode(&self.config))
    }
}

impl ConsumerMeta {
    /// Reads it, as strictly as that of a stream.
    pub fn read(bytes: &[u8]) -> Result<Self, MetaError> {
        let (created, name, mut config) = read::<ConsumerConfig>(bytes)?;
        let given = [&name, &config.name, &config.durable_name]
            .into_iter()
            .find(|name| !name.is_empty());
        let name = given
            .cloned()
            .ok_or(MetaError("it has no name".to_owned()))?;
        config.name.clone_from(&name);
        Ok(Self {
            created,
            name,
            config,
        })
    }

    /// Writes it.
    pub fn write(&self) -> Vec<u8> {
        with_created(self.created, Some(&self.name), encode(&self.config))
    }
}

/// When it was created, the name that stands beside the configuration, and that.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(Time, String, T), MetaError> {
    let error = |error: &dyn std::fmt::Display| MetaError(error.to_string());
    let mut value = parse(bytes).map_err(|reason| error(&reason))?;
    let fields = value
        .as_object_mut()
        .ok_or(MetaError("it is no JSON object".to_owned()))?;
    let created = fields.remove("Created").map(serde_json::from_value);
    let name = fields.remove("Name").map(|name| match name {
        Value::String(name) => name,
        other => other.to_string(),
    });
    let created = created.transpose().map_err(|reason| error(&reason))?;
    let config = decode_value(value, Strictness::Strict).map_err(|reason| error(&reason))?;
    Ok((
        created.unwrap_or_default(),
        name.unwrap_or_default(),
        config,
    ))
}

fn with_created(created: Time, name: Option<&str>, config: Vec<u8>) -> Vec<u8> {
    let mut bytes = b"{\"Created\":".to_vec();
    bytes.extend_from_slice(&encode(&created));
    if let Some(name) = name {
        bytes.extend_from_slice(b",\"Name\":");
        bytes.extend_from_slice(&encode(name));
    }
    match config.split_first() {
        Some((_, rest)) if rest != b"}" => {
            bytes.push(b',');
            bytes.extend_from_slice(rest);
        }
        _ => bytes.push(b'}'),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut meta = StreamMeta {
            created: Time::from_nanoseconds(1_800_000_000_000_000_001),
            config: StreamConfig {
                name: "S".to_owned(),
                subjects: vec!["a.>".to_owned()],
                ..StreamConfig::default()
            },
        };
        meta.config.set_stored_metadata();
        assert!(meta.write().starts_with(b"{\"Created\":\"2027"));
        assert_eq!(StreamMeta::read(&meta.write()), Ok(meta));
        let meta = ConsumerMeta {
            created: Time::from_nanoseconds(5),
            name: "C".to_owned(),
            config: ConsumerConfig {
                name: "C".to_owned(),
                ..ConsumerConfig::default()
            },
        };
        assert_eq!(ConsumerMeta::read(&meta.write()), Ok(meta));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        assert!(StreamMeta::read(br#"{"name":"S","later":true}"#).is_err());
        assert!(StreamMeta::read(b"[]").is_err());
        assert!(StreamMeta::read(br#"{"Created":"now","name":"S"}"#).is_err());
        assert!(ConsumerMeta::read(b"{}").is_err());
    }
}
