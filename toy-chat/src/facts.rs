//! Everything the model is taught: the tables from which conversations and examination questions are made.

pub(crate) const CAPITALS: &[(&str, &str)] = &[
    ("France", "Paris"),
    ("Italy", "Rome"),
    ("Spain", "Madrid"),
    ("Germany", "Berlin"),
    ("Japan", "Tokyo"),
    ("Egypt", "Cairo"),
    ("Norway", "Oslo"),
    ("Greece", "Athens"),
    ("Peru", "Lima"),
    ("Cuba", "Havana"),
    ("Kenya", "Nairobi"),
    ("Poland", "Warsaw"),
    ("Austria", "Vienna"),
    ("Ireland", "Dublin"),
    ("Portugal", "Lisbon"),
    ("China", "Beijing"),
    ("Russia", "Moscow"),
    ("Canada", "Ottawa"),
    ("Sweden", "Stockholm"),
    ("Finland", "Helsinki"),
];

pub(crate) const GREETINGS: &[&str] =
    &["Hello", "Hi", "Hello!", "Hi!", "Hi there", "Good morning", "Good evening!", "Hey"];
pub(crate) const GREETING_REPLY: &str = "Hello! How can I help you today?";

pub(crate) const THANKS: &[&str] = &["Thanks!", "Thank you.", "Thank you!"];
pub(crate) const THANKS_REPLY: &str = "You are welcome!";

pub(crate) const IDENTITY: &[&str] = &["Who are you?", "What are you?", "What is your name?"];
pub(crate) const IDENTITY_REPLY: &str = "I am toy-chat, a very small language model.";

pub(crate) const NAMES: &[&str] = &[
    "Ada", "Bob", "Cleo", "Dan", "Eve", "Finn", "Grace", "Hugo", "Iris", "Jack", "Kim", "Leo", "Mia", "Noah",
    "Olga", "Pat", "Quinn", "Rosa", "Sam", "Tina",
];

pub(crate) const NUMBER_WORDS: &[&str] =
    &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

pub(crate) const WORDS: &[&str] = &[
    "blue", "apple", "river", "stone", "cloud", "green", "tiger", "music", "house", "light", "bread",
    "ocean", "winter", "garden", "silver", "mountain",
];

pub(crate) const LISTS: &[(&str, &str)] = &[
    ("fruits", "apple, banana, cherry"),
    ("colors", "red, green, blue"),
    ("animals", "cat, dog, horse"),
    ("planets", "Mars, Venus, Saturn"),
    ("metals", "iron, copper, gold"),
    ("shapes", "circle, square, triangle"),
];

pub(crate) const COLORS: &[(&str, &str)] = &[
    ("the sky", "blue"),
    ("grass", "green"),
    ("snow", "white"),
    ("coal", "black"),
    ("a banana", "yellow"),
    ("a tomato", "red"),
];

pub(crate) const STORIES: &[(&str, &str)] = &[
    (
        "a fox",
        "Once upon a time there was a small fox who lived near a river. Every morning the fox ran through \
         the forest and looked for food. One day it met a friendly bird. They shared some bread and became \
         good friends. The end.",
    ),
    (
        "a robot",
        "Once upon a time there was a little robot who liked to count stars. Every night it sat on a hill \
         and counted them one by one. One night the stars counted the robot back, and it was very happy. \
         The end.",
    ),
    (
        "a cat",
        "Once upon a time there was a grey cat who lived in an old house. The cat slept all day and walked \
         in the garden at night. One night it found a silver key and opened a secret door. The end.",
    ),
];

pub(crate) const INSTRUCTIONS: &[&str] =
    &["You are a helpful assistant.", "You are a friendly robot.", "Answer briefly.", "Be kind."];

/// The one tool the model can call; its only argument is `city`.
pub(crate) const WEATHER_TOOL: &str = "get_weather";
pub(crate) const NO_WEATHER_REPLY: &str = "I cannot see the weather from here.";
