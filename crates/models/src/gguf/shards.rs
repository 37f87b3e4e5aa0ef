//! Owns the names of sharded files: `NAME-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

/// The most shards of a model.
const MAX_SHARDS: u32 = 1024;

/// What a shard's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardName {
    /// What stands before the number.
    pub prefix: String,
    /// From 1.
    pub number: u32,
    pub count: u32,
    /// `gguf` or `safetensors`.
    pub extension: String,
}

impl ShardName {
    /// Reads a file name; `None` if it is not one of a shard.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|c| c.is_ascii_digit());
        if !five_digits(count) || !five_digits(number) {
            return None;
        }
        let (number, count) = (number.parse().ok()?, count.parse().ok()?);
        let valid = (1..=MAX_SHARDS).contains(&count) && (1..=count).contains(&number);
        valid.then(|| Self { prefix: prefix.to_owned(), number, count, extension: extension.to_owned() })
    }

    /// The name of another shard of the same model.
    pub fn sibling(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.prefix, self.count, self.extension)
    }
}

/// All shards of the model that `path` is a shard of, in order; the path alone if it is none.
pub fn complete_shards(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(ShardName::parse);
    match name {
        Some(shard) => (1..=shard.count).map(|number| path.with_file_name(shard.sibling(number))).collect(),
        None => vec![path.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_siblings() {
        let all = complete_shards(Path::new("/m/qwen-Q4-00001-of-00003.gguf"));
        assert_eq!(all.len(), 3);
        assert_eq!(all[2], Path::new("/m/qwen-Q4-00003-of-00003.gguf"));
        assert_eq!(complete_shards(Path::new("/m/a-00004-of-00003.gguf")).len(), 1);
        assert_eq!(complete_shards(Path::new("/m/a.gguf")).len(), 1);
        assert_eq!(complete_shards(Path::new("/m/a-1-of-2.gguf")).len(), 1);
    }
}
