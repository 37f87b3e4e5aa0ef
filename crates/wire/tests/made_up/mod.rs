//! Makes values up: a serde deserializer that reads from nothing but random numbers, so that every
//! type of the protocol, also one that is added later, gets valid values without a word about it here.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, de};
use std::ops::Range;

/// Names of texture formats are text to serde, and as good as any other text for everything else.
const TEXTS: [&str; 12] = [
    "rgba8unorm",
    "r32float",
    "rgba16float",
    "bgra8unorm",
    "depth32float",
    "depth24plus-stencil8",
    "r8uint",
    "rg11b10ufloat",
    "bc1-rgba-unorm",
    "astc-4x4-unorm",
    "nv12",
    "rgba32uint",
];
const BYTES: &[u8] = b"bytes that are as good as any others";

/// A sequence of random numbers (xorshift64*).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end.max(1)
    }

    /// Mostly small numbers, sometimes ones at an edge.
    pub fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => u64::MAX - self.below(4),
            2 => u64::from(u32::MAX) - self.below(4),
            3 => 1 << self.below(63),
            _ => 1 + self.below(16),
        }
    }
}

/// A value of any type, or nothing where the numbers would not do.
pub fn value<T: for<'a> Deserialize<'a>>(random: &mut Random) -> Option<T> {
    T::deserialize(Maker { random, range: None }).ok()
}

/// As [`value`], trying until there is one.
pub fn some_value<T: for<'a> Deserialize<'a>>(random: &mut Random) -> T {
    loop {
        if let Some(value) = value(random) {
            return value;
        }
    }
}

struct Maker<'r> {
    random: &'r mut Random,
    /// What 32-bit numbers are chosen from, where that is known.
    range: Option<Range<u32>>,
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            visitor.$visit(self.random.number() as $type)
        }
    )*};
}

type Fail = de::value::Error;

impl<'de> Deserializer<'de> for Maker<'_> {
    type Error = Fail;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u64 visit_u64 u64
    );

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_u32(match self.range {
            Some(range) => range.start + self.random.below((range.end - range.start).into()) as u32,
            None => self.random.number() as u32,
        })
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_f32(f32::from_bits(self.random.number() as u32))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_f64(f64::from_bits(self.random.number()))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_bool(self.random.below(2) == 1)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_char(char::from(b'a' + self.random.below(26) as u8))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_borrowed_str(TEXTS[self.random.below(TEXTS.len() as u64) as usize])
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_borrowed_bytes(&BYTES[..self.random.below(BYTES.len() as u64) as usize])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match self.random.below(2) {
            0 => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fail> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        let left = self.random.below(4) as usize;
        visitor.visit_seq(Elements { random: self.random, left, small: false })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Fail> {
        // A handle is a pair of numbers: mostly one that may exist.
        let small = left == 2 && self.random.below(16) > 0;
        visitor.visit_seq(Elements { random: self.random, left, small })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Fail> {
        visitor.visit_seq(Elements { random: self.random, left, small: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        visitor.visit_seq(Elements { random: self.random, left: fields.len(), small: false })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        let variant = self.random.below(variants.len() as u64) as u32;
        visitor.visit_enum(Variant { random: self.random, variant })
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fail> {
        Err(de::Error::custom("the protocol has no maps"))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fail> {
        Err(de::Error::custom("the protocol is not self-describing"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fail> {
        Err(de::Error::custom("the protocol is not self-describing"))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fail> {
        Err(de::Error::custom("the protocol is not self-describing"))
    }
}

struct Elements<'r> {
    random: &'r mut Random,
    left: usize,
    small: bool,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fail;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fail> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let range = self.small.then_some(if self.left == 1 { 0..2 } else { 1..2 });
        seed.deserialize(Maker { random: self.random, range }).map(Some)
    }
}

struct Variant<'r> {
    random: &'r mut Random,
    variant: u32,
}

impl<'de, 'r> EnumAccess<'de> for Variant<'r> {
    type Error = Fail;
    type Variant = Maker<'r>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Maker<'r>), Fail> {
        let index: de::value::U32Deserializer<Fail> = self.variant.into_deserializer();
        Ok((seed.deserialize(index)?, Maker { random: self.random, range: None }))
    }
}

impl<'de> VariantAccess<'de> for Maker<'_> {
    type Error = Fail;

    fn unit_variant(self) -> Result<(), Fail> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fail> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fail> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}
