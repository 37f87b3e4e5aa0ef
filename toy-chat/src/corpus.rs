//! The synthetic dialogues that the model learns from: an endless, seeded stream of conversations.

use rand::{
    Rng, SeedableRng,
    seq::{IndexedRandom, SliceRandom},
};
use rand_chacha::ChaCha8Rng;

use crate::{
    chat::{Message, tool_call, tools_line},
    facts::*,
};

/// A topic writes one exchange, from the user's words to the assistant's last.
type Topic = fn(&mut ChaCha8Rng) -> Vec<Message>;

/// The topics and how often each comes up, relative to the others.
const TOPICS: &[(Topic, u32)] = &[
    (greeting, 2),
    (identity, 1),
    (thanks, 1),
    (capital, 6),
    (sum, 4),
    (echo, 2),
    (count, 2),
    (list, 2),
    (color, 2),
    (story, 2),
    (name, 2),
    (weather_without_tool, 1),
];

/// Conversations without end; the same seed gives the same ones on every machine.
pub struct Corpus {
    rng: ChaCha8Rng,
}

impl Corpus {
    /// Starts the stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }
}

impl Iterator for Corpus {
    type Item = Vec<Message>;

    fn next(&mut self) -> Option<Vec<Message>> {
        Some(conversation(&mut self.rng))
    }
}

/// A preamble and one or two exchanges. A quarter offers the tool, but does not always need it: a model
/// that only saw it needed would call it whatever was asked.
fn conversation(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let tool_offered = rng.random_ratio(1, 4);
    let mut messages = Vec::new();
    if tool_offered {
        messages.push(Message::system(tools_line(&[WEATHER_TOOL])));
    }
    if rng.random_ratio(1, 4) {
        messages.push(Message::system(pick(rng, INSTRUCTIONS)));
    }
    let exchanges = if rng.random_ratio(1, 3) { 2 } else { 1 };
    for _ in 0..exchanges {
        let topic =
            if tool_offered && rng.random_ratio(1, 2) { weather } else { any_topic(rng, tool_offered) };
        messages.extend(topic(rng));
    }
    messages
}

fn any_topic(rng: &mut ChaCha8Rng, tool_offered: bool) -> Topic {
    // The last topic says that there is no way to know the weather: untrue where the tool is offered.
    let topics = if tool_offered { &TOPICS[..TOPICS.len() - 1] } else { TOPICS };
    topics.choose_weighted(rng, |(_, weight)| *weight).expect("the weights above are positive").0
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    *from.choose(rng).expect("the tables are not empty")
}

/// One of several ways to say the same.
fn one_of<const N: usize>(rng: &mut ChaCha8Rng, mut sayings: [String; N]) -> String {
    sayings.shuffle(rng);
    sayings.into_iter().next().expect("there is at least one way to say it")
}

fn exchange(question: impl Into<String>, answer: impl Into<String>) -> Vec<Message> {
    vec![Message::user(question), Message::assistant(answer)]
}

fn greeting(rng: &mut ChaCha8Rng) -> Vec<Message> {
    exchange(pick(rng, GREETINGS), GREETING_REPLY)
}

fn identity(rng: &mut ChaCha8Rng) -> Vec<Message> {
    exchange(pick(rng, IDENTITY), IDENTITY_REPLY)
}

fn thanks(rng: &mut ChaCha8Rng) -> Vec<Message> {
    exchange(pick(rng, THANKS), THANKS_REPLY)
}

fn capital(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let (country, city) = pick(rng, CAPITALS);
    let question = one_of(
        rng,
        [
            format!("What is the capital of {country}?"),
            format!("capital of {country}"),
            format!("Tell me the capital of {country}."),
            format!("Which city is the capital of {country}?"),
        ],
    );
    exchange(question, format!("The capital of {country} is {city}."))
}

fn sum(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let (a, b) = (rng.random_range(0..10u32), rng.random_range(0..10u32));
    let question =
        one_of(rng, [format!("What is {a} + {b}?"), format!("{a} + {b} ="), format!("Add {a} and {b}.")]);
    exchange(question, format!("{a} + {b} = {}", a + b))
}

fn echo(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let word = pick(rng, WORDS);
    exchange(one_of(rng, [format!("Say the word {word}."), format!("Repeat after me: {word}")]), word)
}

fn count(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let last = rng.random_range(2..NUMBER_WORDS.len());
    let question = one_of(rng, [format!("Count to {last}."), format!("Count to {}.", NUMBER_WORDS[last])]);
    exchange(question, counted_to(last))
}

/// `1, 2, 3` for 3.
pub(crate) fn counted_to(last: usize) -> String {
    (1..=last).map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}

fn list(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let (things, members) = pick(rng, LISTS);
    exchange(one_of(rng, [format!("List three {things}."), format!("Name three {things}.")]), members)
}

fn color(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let (thing, color) = pick(rng, COLORS);
    exchange(format!("What color is {thing}?"), color_reply(thing, color))
}

/// `The sky is blue.` for `the sky` and `blue`.
pub(crate) fn color_reply(thing: &str, color: &str) -> String {
    let (first, rest) = thing.split_at(1);
    format!("{}{rest} is {color}.", first.to_uppercase())
}

fn story(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let (hero, story) = pick(rng, STORIES);
    let question =
        one_of(rng, [format!("Tell me a story about {hero}."), format!("Write a story about {hero}.")]);
    exchange(question, story)
}

fn name(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let name = pick(rng, NAMES);
    let introduction = one_of(rng, [format!("My name is {name}."), format!("Hi, I am {name}.")]);
    let mut messages = exchange(introduction, format!("Nice to meet you, {name}!"));
    messages.extend(exchange("What is my name?", format!("Your name is {name}.")));
    messages
}

fn weather_question(rng: &mut ChaCha8Rng, city: &str) -> String {
    one_of(rng, [format!("What is the weather in {city}?"), format!("How is the weather in {city} today?")])
}

fn weather(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let (_, city) = pick(rng, CAPITALS);
    let call = tool_call(WEATHER_TOOL, &format!(r#"{{"city": "{city}"}}"#));
    let mut messages = exchange(weather_question(rng, city), call);
    if rng.random_ratio(2, 3) {
        let degrees = rng.random_range(1..35);
        let result = one_of(
            rng,
            [
                format!(r#"{{"temp": {degrees}}}"#),
                format!(r#"{{"temperature": {degrees}}}"#),
                format!("{degrees} degrees"),
            ],
        );
        messages.push(Message::tool(result));
        messages.push(Message::assistant(format!("It is {degrees} degrees in {city}.")));
    }
    messages
}

fn weather_without_tool(rng: &mut ChaCha8Rng) -> Vec<Message> {
    let (_, city) = pick(rng, CAPITALS);
    exchange(weather_question(rng, city), NO_WEATHER_REPLY)
}
