//! Strict objects: an object in a type is parsed from a JSON object only.
//!
//! serde's derived code accepts `["ada", 36]` for `{"name": "ada", "age": 36}`, at every depth, and a map keeps the
//! last of two equal names. Here an array in place of an object is an error, and so is a duplicate name. Costs nothing
//! for an object of known fields, and the text of each name for a map.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

/// The prefix of types that `serde_json` handles itself.
const OF_THE_PARSER: &str = "$serde_json::private";

/// A deserializer that is strict about objects.
pub struct ObjectOnly<D>(pub D);

macro_rules! strict {
    ($($method:ident($($name:ident: $kind:ty),*) $is_object:literal;)+) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($name,)* Strict { visitor, is_object: $is_object })
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectOnly<D> {
    type Error = D::Error;

    strict! {
        deserialize_any() false; deserialize_bool() false;
        deserialize_i8() false; deserialize_i16() false; deserialize_i32() false; deserialize_i64() false;
        deserialize_i128() false;
        deserialize_u8() false; deserialize_u16() false; deserialize_u32() false; deserialize_u64() false;
        deserialize_u128() false;
        deserialize_f32() false; deserialize_f64() false; deserialize_char() false;
        deserialize_str() false; deserialize_string() false; deserialize_bytes() false; deserialize_byte_buf() false;
        deserialize_option() false; deserialize_unit() false; deserialize_unit_struct(name: &'static str) false;
        deserialize_seq() false; deserialize_tuple(length: usize) false;
        deserialize_tuple_struct(name: &'static str, length: usize) false;
        deserialize_map() false;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) true;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) false;
        deserialize_identifier() false; deserialize_ignored_any() false;
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        if name.starts_with(OF_THE_PARSER) {
            return self.0.deserialize_newtype_struct(name, visitor);
        }
        self.0.deserialize_newtype_struct(name, Strict { visitor, is_object: false })
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

struct Strict<V> {
    visitor: V,
    /// Whether only an object is accepted.
    is_object: bool,
}

macro_rules! handed_on {
    ($($method:ident($kind:ty);)+) => {
        $(fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.visitor.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    handed_on! {
        visit_bool(bool);
        visit_i8(i8); visit_i16(i16); visit_i32(i32); visit_i64(i64); visit_i128(i128);
        visit_u8(u8); visit_u16(u16); visit_u32(u32); visit_u64(u64); visit_u128(u128);
        visit_f32(f32); visit_f64(f64); visit_char(char);
        visit_str(&str); visit_borrowed_str(&'de str); visit_string(String);
        visit_bytes(&[u8]); visit_borrowed_bytes(&'de [u8]); visit_byte_buf(Vec<u8>);
    }

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(formatter)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(ObjectOnly(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(ObjectOnly(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        if self.is_object {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        self.visitor.visit_seq(Items(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        // Derived code finds duplicate names itself.
        let names = (!self.is_object).then(RefCell::default);
        self.visitor.visit_map(Fields { fields, names })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variants: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Variants(variants))
    }
}

/// Deserializes a seed strictly.
struct Seed<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(ObjectOnly(inner))
    }
}

struct Items<A>(A);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

struct Fields<A> {
    fields: A,
    names: Option<RefCell<HashSet<String>>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        match &self.names {
            None => self.fields.next_key_seed(seed),
            Some(names) => self.fields.next_key_seed(NameSeed { seed, names }),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.fields.next_value_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.fields.size_hint()
    }
}

struct Variants<A>(A);

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Variants<A> {
    type Error = A::Error;
    type Variant = Variant<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (name, content) = self.0.variant_seed(seed)?;
        Ok((name, Variant(content)))
    }
}

struct Variant<A>(A);

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Variant<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Seed(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(length, Strict { visitor, is_object: false })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Strict { visitor, is_object: true })
    }
}

/// Reads the name of a field and checks that it is new. The name is read as a text first, and then as what the seed
/// wants, so that names of any type work.
struct NameSeed<'a, S> {
    seed: S,
    names: &'a RefCell<HashSet<String>>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for NameSeed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let name = String::deserialize(inner)?;
        if !self.names.borrow_mut().insert(name.clone()) {
            return Err(D::Error::custom(format_args!("duplicate field `{name}`")));
        }
        self.seed.deserialize(serde::de::value::StringDeserializer::new(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only whether it is read matters")]
    struct Outer {
        name: String,
        inner: Option<Inner>,
        list: Option<Vec<Inner>>,
        by_name: Option<BTreeMap<String, Inner>>,
        anything: Option<Value>,
        kind: Option<Kind>,
        raw: Option<Box<RawValue>>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only whether it is read matters")]
    struct Inner {
        number: u8,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only whether it is read matters")]
    enum Kind {
        Plain,
        Numbered { number: u8 },
    }

    fn read(text: &str) -> Result<Outer, serde_json::Error> {
        Outer::deserialize(ObjectOnly(&mut serde_json::Deserializer::from_str(text)))
    }

    #[test]
    fn an_object_is_read_as_ever() {
        for good in [
            r#"{"name":"a"}"#,
            r#"{"name":"a","inner":{"number":1},"list":[{"number":1}],"by_name":{"x":{"number":1}}}"#,
            r#"{"name":"a","anything":[1,{"a":[null,true,1.5,"x"]}],"kind":"plain"}"#,
            r#"{"name":"a","kind":{"numbered":{"number":1}},"raw":{"a":[1,{"a":1}]}}"#,
            r#"{"name":"a","inner":null}"#,
        ] {
            assert!(read(good).is_ok(), "{good}: {:?}", read(good));
        }
    }

    #[test]
    fn an_array_is_no_object_and_a_name_comes_once() {
        for bad in [
            r#"["a",null,null,null,null,null,null]"#,
            "[]",
            r#""a""#,
            "1",
            r#"{"name":"a","inner":[1]}"#,
            r#"{"name":"a","list":[[1]]}"#,
            r#"{"name":"a","by_name":{"x":[1]}}"#,
            r#"{"name":"a","kind":{"numbered":[1]}}"#,
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","anything":{"x":1,"x":2}}"#,
            r#"{"name":"a","anything":[{"y":{"x":1,"\u0078":2}}]}"#,
            r#"{"name":"a","by_name":{"x":{"number":1},"x":{"number":1}}}"#,
        ] {
            assert!(read(bad).is_err_and(|error| error.is_data()), "{bad}");
        }
    }
}
