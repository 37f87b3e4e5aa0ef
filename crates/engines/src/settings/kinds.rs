//! Owns the types of single settings and how they are spelled.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An enumeration whose spelling in JSON is the one that `llama-server` understands.
macro_rules! spelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$inner])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// How it is written.
            pub fn text(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok($name::$variant),)+
                    other => Err(format!("`{other}` is none of {}", [$($text),+].join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.text()) }
        }
    };
}

spelled!(
    /// Number format of the KV cache.
    CacheType {
        F32 = "f32", F16 = "f16", Bf16 = "bf16", Q8_0 = "q8_0", Q5_1 = "q5_1", Q5_0 = "q5_0",
        Q4_1 = "q4_1", Q4_0 = "q4_0", Iq4Nl = "iq4_nl",
    }
);
spelled!(
    /// On, off, or as the engine thinks best.
    Switch { On = "on", Off = "off", Auto = "auto" }
);
spelled!(
    /// How positions beyond the trained context are squeezed.
    RopeScaling { None = "none", Linear = "linear", Yarn = "yarn" }
);
spelled!(
    /// How token embeddings become one.
    Pooling { None = "none", Mean = "mean", Cls = "cls", Last = "last", Rank = "rank" }
);
spelled!(
    /// What becomes of thoughts in the answer.
    ReasoningFormat { None = "none", Auto = "auto", Deepseek = "deepseek", DeepseekLegacy = "deepseek-legacy" }
);
spelled!(
    /// How weights come into memory.
    Loading {
        Auto = "auto", Read = "none", Mmap = "mmap", Mlock = "mlock", MmapMlock = "mmap+mlock",
    }
);
spelled!(
    /// How a model is split over GPUs.
    SplitMode { None = "none", Layer = "layer", Row = "row" }
);

impl CacheType {
    /// Bits of one number, block scales included.
    pub fn bits(self) -> f64 {
        match self {
            CacheType::F32 => 32.0,
            CacheType::F16 | CacheType::Bf16 => 16.0,
            CacheType::Q8_0 => 8.5,
            CacheType::Q5_1 => 6.0,
            CacheType::Q5_0 => 5.5,
            CacheType::Q4_1 => 5.0,
            CacheType::Q4_0 | CacheType::Iq4Nl => 4.5,
        }
    }
}

/// Layers in GPU memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GpuLayers {
    /// As many as fit, by the engine's own judgement.
    Auto,
    All,
    Exactly(u32),
}

impl fmt::Display for GpuLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuLayers::Auto => f.write_str("auto"),
            GpuLayers::All => f.write_str("all"),
            GpuLayers::Exactly(layers) => write!(f, "{layers}"),
        }
    }
}

impl FromStr for GpuLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "-1" => Ok(GpuLayers::Auto),
            "all" | "-2" => Ok(GpuLayers::All),
            number => match number.parse() {
                Ok(layers) => Ok(GpuLayers::Exactly(layers)),
                Err(_) => Err(format!("`{number}` is neither `auto`, `all` nor a number of layers")),
            },
        }
    }
}

impl Serialize for GpuLayers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            GpuLayers::Exactly(layers) => to.serialize_u32(*layers),
            named => to.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for GpuLayers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        NumberOrText::deserialize(from)?.text().parse().map_err(serde::de::Error::custom)
    }
}

/// How long a model stays loaded after its last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeepAlive {
    Forever,
    For(Duration),
}

impl KeepAlive {
    /// Reads `5m`, `1h30m`, `90s`, `300` (seconds), `0`, and `-1` or any other negative number for
    /// ever.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time to keep a model: write 5m, 90s, 0 or -1 (for ever)");
        let text = text.trim();
        if let Some(rest) = text.strip_prefix('-') {
            return rest
                .starts_with(|c: char| c.is_ascii_digit())
                .then_some(KeepAlive::Forever)
                .ok_or_else(wrong);
        }
        if let Ok(seconds) = text.parse::<f64>() {
            return Self::seconds(seconds).ok_or_else(wrong);
        }
        let mut total = 0.0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            let tail = &rest[digits..];
            let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            total += number * seconds_of(&tail[..unit]).ok_or_else(wrong)?;
            rest = &tail[unit..];
        }
        if text.is_empty() { Err(wrong()) } else { Self::seconds(total).ok_or_else(wrong) }
    }

    /// From a number of seconds; negative is for ever, and so are 100 years, which no clock is set to.
    pub fn seconds(seconds: f64) -> Option<Self> {
        match seconds {
            s if !s.is_finite() => None,
            s if s < 0.0 => Some(KeepAlive::Forever),
            s if s >= 100.0 * 365.0 * 86_400.0 => Some(KeepAlive::Forever),
            s => Duration::try_from_secs_f64(s).ok().map(KeepAlive::For),
        }
    }
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    })
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeepAlive::Forever => f.write_str("-1"),
            KeepAlive::For(time) => write!(f, "{}s", time.as_secs_f64()),
        }
    }
}

impl Serialize for KeepAlive {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            KeepAlive::Forever => to.serialize_i64(-1),
            time => to.collect_str(time),
        }
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        KeepAlive::parse(&NumberOrText::deserialize(from)?.text()).map_err(serde::de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl NumberOrText {
    fn text(&self) -> String {
        match self {
            NumberOrText::Number(number) => number.to_string(),
            NumberOrText::Text(text) => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |s: f64| Ok(KeepAlive::For(Duration::from_secs_f64(s)));
        for (text, expected) in [
            ("5m", seconds(300.0)),
            ("1h30m", seconds(5400.0)),
            ("90", seconds(90.0)),
            ("0", seconds(0.0)),
            ("250ms", seconds(0.25)),
            ("-1", Ok(KeepAlive::Forever)),
            ("-1m", Ok(KeepAlive::Forever)),
            ("1e19", Ok(KeepAlive::Forever)),
            ("1e300", Ok(KeepAlive::Forever)),
        ] {
            assert_eq!(KeepAlive::parse(text), expected, "{text}");
        }
        for wrong in ["", "soon", "5x", "m5", "-", "5m3", "NaN", "inf"] {
            assert!(KeepAlive::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_keeps_every_kind() {
        for value in [KeepAlive::Forever, KeepAlive::For(Duration::from_millis(1500))] {
            let text = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<KeepAlive>(&text).unwrap(), value, "{text}");
        }
        for (text, value) in
            [("\"all\"", GpuLayers::All), ("\"auto\"", GpuLayers::Auto), ("7", GpuLayers::Exactly(7))]
        {
            assert_eq!(serde_json::from_str::<GpuLayers>(text).unwrap(), value);
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        assert!(serde_json::from_str::<GpuLayers>("1.5").is_err());
        assert!(serde_json::from_str::<CacheType>("\"q2_k\"").is_err());
    }
}
