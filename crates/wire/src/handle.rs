//! Handles: names for objects that the guest chooses and the host looks up, never believes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// A kind of object; each has its own table on the host.
pub trait Kind: 'static {
    /// The code of the kind in a [`crate::frame`] that drops an object.
    const CODE: u8;
    /// The kind's name in errors.
    const NAME: &'static str;
}

macro_rules! kinds {
    ($($code:literal $name:ident $text:literal,)*) => {
        $(
            #[doc = concat!("Marks handles of a ", $text, ".")]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $name {}
            impl Kind for $name {
                const CODE: u8 = $code;
                const NAME: &'static str = $text;
            }
        )*
        /// The name of the kind with this code, if there is one.
        pub fn kind_name(code: u8) -> Option<&'static str> {
            match code { $($code => Some($text),)* _ => None }
        }
    };
}

kinds! {
    0 Device "device",
    1 Buffer "buffer",
    2 Texture "texture",
    3 TextureView "texture view",
    4 Sampler "sampler",
    5 BindGroupLayout "bind group layout",
    6 BindGroup "bind group",
    7 PipelineLayout "pipeline layout",
    8 ShaderModule "shader module",
    9 ComputePipeline "compute pipeline",
    10 RenderPipeline "render pipeline",
    11 QuerySet "query set",
    12 CommandEncoder "command encoder",
    13 CommandBuffer "command buffer",
    14 RenderBundle "render bundle",
    15 ExternalTexture "external texture",
}

/// The name of one object of kind `K` in one session: a dense index and the index's generation.
///
/// The guest chooses it. A generation starts at 1 and grows by one each time the index is used
/// again, so a stale name is told from a live one.
pub struct Id<K> {
    index: u32,
    generation: u32,
    kind: PhantomData<fn() -> K>,
}

impl<K> Id<K> {
    /// The name with this index and generation.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation, kind: PhantomData }
    }

    /// The place in the kind's table.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// How often the place has been used, this time included.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Index in the low half, generation in the high half.
    pub const fn to_bits(self) -> u64 {
        self.index as u64 | (self.generation as u64) << 32
    }

    /// The reverse of [`Id::to_bits`].
    pub const fn from_bits(bits: u64) -> Self {
        Self::new(bits as u32, (bits >> 32) as u32)
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}
impl<K> Eq for Id<K> {}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.to_bits().hash(state);
    }
}

impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.index, self.generation).serialize(serializer)
    }
}

impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (index, generation) = Deserialize::deserialize(deserializer)?;
        Ok(Self::new(index, generation))
    }
}
