//! Captures as values of any type that serde knows.

use serde::{
    de::{
        DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use thiserror::Error;

use super::incoming::Incoming;

/// Why captures are not what a handler takes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("captures of the topic: {0}")]
pub struct PathError(String);

impl serde::de::Error for PathError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

pub(super) fn deserialize<T: DeserializeOwned>(incoming: &Incoming) -> Result<T, PathError> {
    T::deserialize(Captures(incoming))
}

/// All captures of a message.
struct Captures<'a>(&'a Incoming);

/// What one capture has taken.
#[derive(Clone, Copy)]
struct Value<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Captures<'a> {
    fn values(&self) -> impl Iterator<Item = Value<'a>> + Clone {
        let captures = self.0.captures();
        captures.map(|(name, text)| Value { name, text })
    }

    /// The only one there is.
    fn value(&self) -> Result<Value<'a>, PathError> {
        let mut values = self.values();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(self.count("one")),
        }
    }

    fn count(&self, expected: impl std::fmt::Display) -> PathError {
        let count = self.values().count();
        PathError(format!("there are {count}, and {expected} taken"))
    }
}

/// Asks the only capture.
macro_rules! of_the_only_one {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
            self.value()?.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Captures<'_> {
    type Error = PathError;

    of_the_only_one! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        let values = self.values().map(|value| (value.name, value));
        visitor.visit_map(MapDeserializer::new(values))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self.value() {
            Ok(value) => value.deserialize_seq(visitor),
            Err(_) => visitor.visit_seq(SeqDeserializer::new(self.values())),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, PathError> {
        if self.values().count() != len {
            return Err(self.count(len));
        }
        visitor.visit_seq(SeqDeserializer::new(self.values()))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, PathError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, PathError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PathError> {
        self.value()?.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! { map struct unit_struct ignored_any }
}

impl<'de> IntoDeserializer<'de, PathError> for Value<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
            match self.text.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(PathError(format!("`{}` is not a {}", self.name, stringify!($type)))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = PathError;

    parsed! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
        deserialize_char visit_char char;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        visitor.visit_str(self.text)
    }

    /// One element for each level of what takes the rest; none for the level above it.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        let levels = self.text.split('/').filter(|_| !self.text.is_empty());
        visitor.visit_seq(SeqDeserializer::new(levels.map(|text| Value {
            name: self.name,
            text,
        })))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, PathError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PathError> {
        if !variants.contains(&self.text) {
            return Err(PathError(format!("`{}` is not a known variant", self.name)));
        }
        visitor.visit_enum(self.text.into_deserializer())
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        Err(PathError::invalid_type(
            Unexpected::Other("a level"),
            &visitor,
        ))
    }

    forward_to_deserialize_any! {
        str string bytes byte_buf identifier ignored_any unit_struct tuple tuple_struct map struct
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fmt::Debug, sync::Arc};

    use mqtt_proto::Message;
    use serde::Deserialize;

    use super::*;
    use crate::router::pattern::Pattern;

    fn incoming(pattern: &str, topic: &str) -> Incoming {
        let mut incoming = Incoming::new(Message::new(topic, "").unwrap());
        incoming.set_pattern(Some(Arc::new(Pattern::new(pattern).unwrap())));
        incoming
    }

    #[track_caller]
    fn check<T: DeserializeOwned + PartialEq + Debug>(pattern: &str, topic: &str, expected: T) {
        assert_eq!(deserialize::<T>(&incoming(pattern, topic)), Ok(expected));
    }

    #[track_caller]
    fn refused<T: DeserializeOwned + Debug>(pattern: &str, topic: &str, expected: &str) {
        let error = deserialize::<T>(&incoming(pattern, topic)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("captures of the topic: {expected}")
        );
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Unit {
        Celsius,
        Kelvin,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Id(u32);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Reading {
        unit: Unit,
        device: Id,
        rest: Option<Vec<String>>,
    }

    #[test]
    fn captures_become_values() {
        check("{id}", "ä b", "ä b".to_owned());
        check("{id}", "7", 7_u8);
        check("{id}", "7", Id(7));
        check("{id}", "x", 'x');
        check("{id}", "kelvin", Unit::Kelvin);
        check("{a}/{b}", "1/x", (1_i64, "x".to_owned()));
        check("{a}/{b}", "1/", (1_i64, String::new()));
        check("{a}/+", "1/2", (1_u64,));
        check("a", "a", ());
        check(
            "{a}/{*rest}",
            "1/b//c",
            (
                "1".to_owned(),
                vec!["b".to_owned(), String::new(), "c".to_owned()],
            ),
        );
        check("{*rest}", "b/c", vec!["b".to_owned(), "c".to_owned()]);
        check("a/{*rest}", "a", Vec::<String>::new());
        check("{a}/{b}", "x/y", vec!["x".to_owned(), "y".to_owned()]);
        let both = [("a", "1"), ("b", "2")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        check("{a}/{b}", "1/2", HashMap::from(both));
        let reading = Reading {
            unit: Unit::Celsius,
            device: Id(7),
            rest: Some(vec!["x".into()]),
        };
        check("{device}/{unit}/{*rest}", "7/celsius/x", reading);
    }

    /// What they say names the capture, and nothing of the topic.
    #[test]
    fn captures_that_do_not_fit_are_refused() {
        refused::<u8>("{id}", "256", "`id` is not a u8");
        refused::<bool>("{id}", "yes", "`id` is not a bool");
        refused::<Unit>("{id}", "rankine", "`id` is not a known variant");
        refused::<String>("a", "a", "there are 0, and one taken");
        refused::<String>("{a}/{b}", "a/b", "there are 2, and one taken");
        refused::<(String, String)>("{a}", "a", "there are 1, and 2 taken");
        refused::<(String, ())>("{a}/{b}", "a/b", "invalid type: a level, expected unit");
        refused::<Reading>("{device}", "7", "missing field `unit`");
    }
}
