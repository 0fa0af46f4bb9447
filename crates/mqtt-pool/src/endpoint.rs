//! The endpoints a pool connects to, and how much of it each is to have.

use std::{collections::HashSet, fmt};

use mqtt_transport::Endpoint;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::ConfigErrors;

/// The largest weight: enough for any ratio that could be noticed in a pool.
const MAX_WEIGHT: u32 = 1_000;

/// A server, and how large its share of a pool is beside the others.
///
/// In configuration it is a table, or just the URL when the weight is 1:
///
/// ```
/// use mqtt_pool::WeightedEndpoint;
///
/// #[derive(serde::Deserialize)]
/// struct Options {
///     endpoints: Vec<WeightedEndpoint>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options: Options = toml::from_str(
///     r#"endpoints = ["mqtt://a", { url = "mqtt://b", weight = 2 }]"#,
/// )?;
/// let b = WeightedEndpoint::new("mqtt://b".parse()?).with_weight(2);
/// assert_eq!(options.endpoints, ["mqtt://a".parse()?, b]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct WeightedEndpoint {
    /// Where the server is; `url` in configuration.
    #[serde(rename = "url")]
    pub endpoint: Endpoint,
    /// Its share of the members beside the other endpoints, from 1 to 1000: an endpoint of weight
    /// 2 is given twice as many as one of weight 1. Default 1, so that all have the same.
    pub weight: u32,
}

impl WeightedEndpoint {
    /// An endpoint of weight 1.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            weight: default_weight(),
        }
    }

    /// With this [`weight`](Self::weight).
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Checks the endpoints of a pool.
    ///
    /// # Errors
    ///
    /// That there is none, every weight that is not allowed, and every endpoint that is there
    /// again, under paths like `endpoints[1].weight`.
    pub fn validate_all(endpoints: &[Self]) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if endpoints.is_empty() {
            errors.push(
                "endpoints",
                "empty",
                "must name at least one server",
                "add one, like \"mqtt://localhost\"",
            );
        }
        let mut known = HashSet::new();
        for (index, Self { endpoint, weight }) in endpoints.iter().enumerate() {
            if !known.insert(endpoint) {
                errors.push(
                    format!("endpoints[{index}].url"),
                    endpoint,
                    "must not be there twice",
                    "give the first one a larger weight instead",
                );
            }
            if !(1..=MAX_WEIGHT).contains(weight) {
                errors.push(
                    format!("endpoints[{index}].weight"),
                    weight,
                    "must be from 1 to 1000",
                    "leave an endpoint out to give it nothing",
                );
            }
        }
        errors.into_result()
    }
}

fn default_weight() -> u32 {
    1
}

impl From<Endpoint> for WeightedEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint)
    }
}

impl std::str::FromStr for WeightedEndpoint {
    type Err = mqtt_transport::EndpointError;

    /// An endpoint of weight 1 from its URL.
    fn from_str(url: &str) -> Result<Self, Self::Err> {
        url.parse().map(Self::new)
    }
}

impl<'de> Deserialize<'de> for WeightedEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UrlOrTable)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: Endpoint,
    #[serde(default = "default_weight")]
    weight: u32,
}

/// Unlike an untagged enum it says what is wrong inside of the table.
struct UrlOrTable;

impl<'de> Visitor<'de> for UrlOrTable {
    type Value = WeightedEndpoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL like \"mqtt://host\", or a table of url and weight")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<Self::Value, E> {
        url.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Table { url, weight } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(WeightedEndpoint::new(url).with_weight(weight))
    }
}
