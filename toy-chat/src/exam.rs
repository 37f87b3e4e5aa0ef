//! The examination: what a trained model must be able to answer, and how well one does.

use serde_json::json;

use crate::{
    Error,
    chat::{Message, tool_call},
    corpus::{color_reply, counted_to},
    facts::*,
    speaker::Reply,
};

/// The tool that some questions offer.
pub const TOOL: &str = WEATHER_TOOL;

/// A question, and the only answer that counts.
pub struct Question {
    /// The conversation so far, without the system turn that offers the tool.
    pub messages: Vec<Message>,
    /// Whether the tool is on offer.
    pub tool: bool,
    expected: Reply,
}

/// Questions of one kind.
pub struct Topic {
    /// What they are about.
    pub name: &'static str,
    /// The questions.
    pub questions: Vec<Question>,
    /// Share of right answers below which the model has failed.
    pub needed: f64,
}

/// How a model did in one topic.
pub struct Mark {
    /// The topic's name.
    pub topic: &'static str,
    /// Right answers.
    pub right: usize,
    /// Questions asked.
    pub asked: usize,
    /// Whether that is enough.
    pub passed: bool,
    /// The first wrong answer, with its question.
    pub mistake: Option<(String, Reply)>,
}

/// Asks everything through `answer` and calls `report` after each topic. Fails if a topic does.
pub fn examine(
    mut answer: impl FnMut(&Question) -> Result<Reply, Error>,
    mut report: impl FnMut(&Mark),
) -> Result<(), Error> {
    let mut failed = Vec::new();
    for topic in topics() {
        let mark = examine_topic(&topic, &mut answer)?;
        report(&mark);
        if !mark.passed {
            failed.push(mark.topic);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Failed { topics: failed.join(", ") }) }
}

fn examine_topic(
    topic: &Topic,
    answer: &mut impl FnMut(&Question) -> Result<Reply, Error>,
) -> Result<Mark, Error> {
    let (mut right, mut mistake) = (0, None);
    for question in &topic.questions {
        let reply = answer(question)?;
        if reply == question.expected {
            right += 1;
        } else if mistake.is_none() {
            let asked = question.messages.last().map_or("", |last| &last.content);
            mistake = Some((asked.to_owned(), reply));
        }
    }
    let asked = topic.questions.len();
    let passed = right as f64 >= topic.needed * asked as f64;
    Ok(Mark { topic: topic.name, right, asked, passed, mistake })
}

fn ask(question: impl Into<String>, answer: impl Into<String>) -> Question {
    talk(vec![Message::user(question)], answer)
}

fn talk(messages: Vec<Message>, answer: impl Into<String>) -> Question {
    Question { messages, tool: false, expected: Reply::Words(answer.into()) }
}

fn with_tool(question: Question) -> Question {
    Question { tool: true, ..question }
}

/// All of the examination. Sums are asked too, but so small a model need not be good at them.
pub fn topics() -> Vec<Topic> {
    let topic = |name, needed, questions| Topic { name, questions, needed };
    vec![
        topic("greetings", 1.0, greetings()),
        topic("capitals", 1.0, capitals()),
        topic("names", 0.9, names()),
        topic("echo", 0.9, echoes()),
        topic("counting", 0.9, counting()),
        topic("lists", 1.0, lists()),
        topic("colors", 1.0, colors()),
        topic("stories", 1.0, stories()),
        topic("tool calls", 0.9, tool_calls()),
        topic("tool results", 0.8, tool_results()),
        topic("questions beside a tool", 0.9, beside_tool()),
        topic("sums", 0.0, sums()),
    ]
}

fn greetings() -> Vec<Question> {
    let mut all: Vec<_> = GREETINGS.iter().map(|&greeting| ask(greeting, GREETING_REPLY)).collect();
    all.extend(THANKS.iter().map(|&thanks| ask(thanks, THANKS_REPLY)));
    all.extend(IDENTITY.iter().map(|&question| ask(question, IDENTITY_REPLY)));
    all
}

fn capital_of(country: &str, city: &str) -> Question {
    ask(format!("What is the capital of {country}?"), format!("The capital of {country} is {city}."))
}

fn capitals() -> Vec<Question> {
    CAPITALS.iter().map(|(country, city)| capital_of(country, city)).collect()
}

fn names() -> Vec<Question> {
    let remember = |name: &&str| {
        let messages = vec![
            Message::user(format!("My name is {name}.")),
            Message::assistant(format!("Nice to meet you, {name}!")),
            Message::user("What is my name?"),
        ];
        talk(messages, format!("Your name is {name}."))
    };
    NAMES.iter().map(remember).collect()
}

fn echoes() -> Vec<Question> {
    WORDS.iter().map(|&word| ask(format!("Say the word {word}."), word)).collect()
}

fn counting() -> Vec<Question> {
    (2..NUMBER_WORDS.len()).map(|last| ask(format!("Count to {last}."), counted_to(last))).collect()
}

fn lists() -> Vec<Question> {
    LISTS.iter().map(|&(things, members)| ask(format!("List three {things}."), members)).collect()
}

fn colors() -> Vec<Question> {
    let color =
        |&(thing, color): &(&str, &str)| ask(format!("What color is {thing}?"), color_reply(thing, color));
    COLORS.iter().map(color).collect()
}

fn stories() -> Vec<Question> {
    STORIES.iter().map(|&(hero, story)| ask(format!("Tell me a story about {hero}."), story)).collect()
}

fn weather_in(city: &str) -> Message {
    Message::user(format!("What is the weather in {city}?"))
}

fn tool_calls() -> Vec<Question> {
    let call = |(_, city): &(&str, &str)| Question {
        messages: vec![weather_in(city)],
        tool: true,
        expected: Reply::Call(WEATHER_TOOL.to_owned(), json!({"city": city})),
    };
    CAPITALS.iter().map(call).collect()
}

fn tool_results() -> Vec<Question> {
    let result = |((_, city), degrees): (&(&str, &str), u32)| {
        let messages = vec![
            weather_in(city),
            Message::assistant(tool_call(WEATHER_TOOL, &format!(r#"{{"city": "{city}"}}"#))),
            Message::tool(format!(r#"{{"temp": {degrees}}}"#)),
        ];
        with_tool(talk(messages, format!("It is {degrees} degrees in {city}.")))
    };
    CAPITALS.iter().zip(8..).map(result).collect()
}

fn beside_tool() -> Vec<Question> {
    let capitals = CAPITALS.iter().map(|(country, city)| capital_of(country, city));
    let greetings = GREETINGS.iter().map(|&greeting| ask(greeting, GREETING_REPLY));
    capitals.chain(greetings).map(with_tool).collect()
}

fn sums() -> Vec<Question> {
    let pairs = (0..10).flat_map(|a| (0..10).map(move |b| (a, b)));
    pairs.map(|(a, b)| ask(format!("What is {a} + {b}?"), format!("{a} + {b} = {}", a + b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examines a student who knows all the answers but those to the topics named.
    fn examined_without(ignored: &[&str]) -> (Result<(), Error>, Vec<Mark>) {
        let mut answers: Vec<Reply> = Vec::new();
        for topic in topics() {
            let knows = !ignored.contains(&topic.name);
            let silence = || Reply::Words(String::new());
            answers.extend(topic.questions.into_iter().map(|it| if knows { it.expected } else { silence() }));
        }
        let (mut answers, mut marks) = (answers.into_iter(), Vec::new());
        let outcome = examine(
            |_| Ok(answers.next().expect("as many answers as questions")),
            |mark| marks.push(Mark { mistake: mark.mistake.clone(), ..*mark }),
        );
        (outcome, marks)
    }

    #[test]
    fn who_knows_everything_passes() {
        let (outcome, marks) = examined_without(&[]);
        outcome.unwrap();
        assert!(marks.iter().all(|mark| mark.right == mark.asked && mark.mistake.is_none()));
        assert!(marks.iter().map(|mark| mark.asked).sum::<usize>() > 200);
    }

    #[test]
    fn who_knows_no_capitals_fails_and_who_cannot_add_does_not() {
        let (outcome, marks) = examined_without(&["capitals", "sums"]);
        let sentence = outcome.unwrap_err().to_string();
        assert!(sentence.contains("too little about capitals;"), "{sentence}");
        let capitals = &marks[1];
        assert_eq!((capitals.topic, capitals.right, capitals.asked), ("capitals", 0, 20));
        assert_eq!(capitals.mistake.as_ref().unwrap().0, "What is the capital of France?");
    }
}
