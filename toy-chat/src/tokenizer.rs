//! The byte-level BPE tokenizer: learned from the corpus, used as llama.cpp uses the `gpt-2` kind.

use std::collections::HashMap;

use tokenizers::{
    AddedToken, Trainer,
    models::bpe::{BPE, BpeTrainer, Vocab},
    pre_tokenizers::byte_level::ByteLevel,
    tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer},
};

use crate::{
    Error,
    chat::{CALL_END, CALL_START, TURN_END, TURN_START},
};

/// Separates documents; here it fills up rows of a batch.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Tokens that a server keeps out of the answer's text.
const CONTROL: [&str; 3] = [END_OF_TEXT, TURN_START, TURN_END];
/// Tokens that belong to the answer's text, but are one token each.
const MARKERS: [&str; 2] = [CALL_START, CALL_END];

/// What becomes of a token in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Structure, never shown.
    Control,
    /// A word of its own that text may contain.
    UserDefined,
}

/// Everything a tokenizer is made of, and a GGUF file records of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Tokens by id, in the byte-level alphabet (a space is `Ġ`).
    pub tokens: Vec<String>,
    /// Pairs that are joined, most urgent first.
    pub merges: Vec<(String, String)>,
}

impl Vocabulary {
    /// What the token of this text is.
    pub fn kind(token: &str) -> TokenKind {
        if CONTROL.contains(&token) {
            TokenKind::Control
        } else if MARKERS.contains(&token) {
            TokenKind::UserDefined
        } else {
            TokenKind::Normal
        }
    }

    /// Learns the merges that shorten `texts` most. `size` is the number of tokens, the 256 bytes and the
    /// special tokens included.
    pub fn learn<'a>(texts: impl Iterator<Item = &'a str> + Send, size: usize) -> Result<Self, Error> {
        let special = CONTROL.len() + MARKERS.len();
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .vocab_size(size - special)
            .build();
        trainer.feed(texts, words)?;
        let mut model = BPE::default();
        trainer.train(&mut model)?;
        let mut vocabulary = Self::of(&model)?;
        vocabulary.tokens.extend(CONTROL.into_iter().chain(MARKERS).map(str::to_owned));
        Ok(vocabulary)
    }

    /// The library tells its merges only through serde.
    fn of(model: &BPE) -> Result<Self, Error> {
        #[derive(serde::Deserialize)]
        struct Saved {
            vocab: HashMap<String, u32>,
            merges: Vec<(String, String)>,
        }
        let Saved { vocab, merges } =
            serde_json::to_value(model).and_then(serde_json::from_value).map_err(tokenizers::Error::from)?;
        let mut tokens: Vec<(u32, String)> = vocab.into_iter().map(|(token, id)| (id, token)).collect();
        tokens.sort_unstable();
        Ok(Self { tokens: tokens.into_iter().map(|(_, token)| token).collect(), merges })
    }
}

/// GPT-2's way to cut text into words, in which pairs are then joined.
fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

fn words(text: &str) -> tokenizers::Result<Vec<String>> {
    let mut cut = PreTokenizedString::from(text);
    byte_level().pre_tokenize(&mut cut)?;
    let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

/// Text to token ids and back.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    end_of_text: u32,
    turn_end: u32,
}

impl Tokenizer {
    /// A tokenizer of this vocabulary.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, Error> {
        let ids: Vocab = vocabulary.tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect();
        let model = BPE::builder().vocab_and_merges(ids, vocabulary.merges.clone()).build()?;
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(byte_level())).with_decoder(Some(byte_level()));
        inner.add_special_tokens(CONTROL.map(|token| AddedToken::from(token, true)))?;
        inner.add_tokens(MARKERS.map(|token| AddedToken::from(token, false).normalized(false)))?;
        let id = |token| inner.token_to_id(token).ok_or_else(|| format!("there is no token {token}").into());
        let (end_of_text, turn_end): (tokenizers::Result<u32>, _) = (id(END_OF_TEXT), id(TURN_END));
        Ok(Self { end_of_text: end_of_text?, turn_end: turn_end?, inner, vocabulary })
    }

    /// What the tokenizer is made of.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The id of [`END_OF_TEXT`].
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// The id of [`TURN_END`].
    pub fn turn_end(&self) -> u32 {
        self.turn_end
    }

    /// The ids of `text`, in which special tokens are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.inner.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// The text of `ids`, without control tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        Ok(self.inner.decode(ids, true)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{chat, corpus::Corpus};

    const SIZE: usize = 400;

    fn tokenizer() -> Tokenizer {
        let texts: Vec<String> = Corpus::new(1).take(300).map(|messages| chat::render(&messages)).collect();
        Tokenizer::new(Vocabulary::learn(texts.iter().map(String::as_str), SIZE).unwrap()).unwrap()
    }

    #[test]
    fn the_vocabulary_has_the_size_asked_for_and_no_token_twice() {
        let vocabulary = tokenizer().vocabulary().clone();
        let unique: std::collections::HashSet<&String> = vocabulary.tokens.iter().collect();
        assert_eq!((vocabulary.tokens.len(), unique.len()), (SIZE, SIZE));
        for (left, right) in &vocabulary.merges {
            assert!(vocabulary.tokens.contains(&format!("{left}{right}")), "{left} + {right} is no token");
        }
    }

    #[test]
    fn learning_twice_gives_the_same_vocabulary() {
        assert_eq!(tokenizer().vocabulary(), tokenizer().vocabulary());
    }

    #[test]
    fn words_of_the_corpus_are_shorter_than_their_bytes() {
        let sentence = "What is the capital of France?";
        let ids = tokenizer().encode(sentence).unwrap();
        assert!(ids.len() * 2 < sentence.len(), "{} tokens", ids.len());
    }

    #[test]
    fn special_tokens_are_one_token_each_and_only_control_tokens_are_hidden() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("<|im_start|><tool_call>x</tool_call><|im_end|>").unwrap();
        assert_eq!(ids.len(), 5);
        assert_eq!(ids[4], tokenizer.turn_end());
        assert_eq!(tokenizer.decode(&ids).unwrap(), "<tool_call>x</tool_call>");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_survives_encoding_and_decoding(text in "\\PC{0,40}[\\n ]{0,3}\\PC{0,40}") {
            let tokenizer = &*TOKENIZER;
            // A control token inside the text is dropped, as it should be: such texts are not asked for.
            prop_assume!(!CONTROL.iter().any(|token| text.contains(token)));
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
        }
    }

    static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(tokenizer);
}
