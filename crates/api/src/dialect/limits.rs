//! Every bound on what a caller or an engine may send to the dialects, with its reason.

/// Longest request body in bytes. Images travel inside it as base64.
pub const BODY: usize = 64 << 20;
/// Deepest nesting of arrays and objects. Engines walk JSON schemas recursively on small stacks.
pub const DEPTH: usize = 64;
/// Longest model name in bytes.
pub const MODEL: usize = 512;
/// Most messages or input items of one conversation.
pub const MESSAGES: usize = 10_000;
/// Most content parts of one message.
pub const PARTS: usize = 1_000;
/// Most tools of one request: every one of them becomes grammar rules in the engine.
pub const TOOLS: usize = 512;
/// Longest name of a tool in bytes.
pub const TOOL_NAME: usize = 128;
/// Most stop sequences: the engine searches for each of them after each token.
pub const STOPS: usize = 64;
/// Longest stop sequence in bytes.
pub const STOP: usize = 1024;
/// Most texts of one embedding, rerank or completion request; each one is a task of its own in the engine.
pub const TEXTS: usize = 2048;
/// Most choices per request: each one takes a slot of the engine.
pub const CHOICES: i64 = 16;
/// Most alternatives per token with log probabilities: each one costs a sort of the vocabulary.
pub const LOGPROBS: i64 = 20;
/// Most tokens that a repetition penalty looks back: the engine allocates this many per request.
pub const LOOK_BACK: i64 = 65_536;
/// Longest grammar in bytes.
pub const GRAMMAR: usize = 64 << 10;
/// Longest JSON schema or other structured option in bytes.
pub const OPTION: usize = 256 << 10;
/// Most entries of a logit bias.
pub const BIASES: usize = 1024;
/// Most turns behind one `previous_response_id`.
pub const TURNS: usize = 500;
/// Longest single event that an engine may stream, in bytes.
pub const EVENT: usize = 8 << 20;
/// Most bytes of one answer that a dialect which repeats the answer at its end will hold.
pub const ANSWER: usize = 16 << 20;
/// Most tool calls in one answer.
pub const CALLS: usize = 256;
/// Most integers in an Ollama `context`.
pub const CONTEXT: usize = 1 << 20;
