//! The command line: trains the toy chat model, or examines one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{Args, Parser, Subcommand};
use toy_chat::{
    Error,
    chat::{Message, tools_line},
    exam::{self, Mark, Question},
    gguf::{self, Encoding},
    server,
    speaker::{Reply, Speaker},
    training::{self, Plan, Progress},
};

/// Steps between two lines of progress.
const REPORT_EVERY: usize = 25;

/// Trains the small chat model that Pontoon's tests and demo serve, or examines one
#[derive(Parser)]
#[command(version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model and write it as GGUF
    Train(Train),
    /// Ask a model everything it must know; fails if it knows too little
    Check {
        /// A GGUF file of this program's, or the http:// address of a server that has it loaded
        model: String,
    },
}

#[derive(Args)]
struct Train {
    /// The file to write
    out: PathBuf,
    /// Steps of the optimizer
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    rows: usize,
    /// Tokens in a row
    #[arg(long, default_value_t = 128)]
    row_length: usize,
    /// Tokens of the vocabulary
    #[arg(long, default_value_t = 512)]
    vocabulary: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 3e-3)]
    rate: f64,
    /// Seed of the corpus and of the first weights
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How the file stores the matrices
    #[arg(long, value_enum, default_value_t = Encoding::Q8_0)]
    encoding: Encoding,
    /// Context length that the file announces, in tokens
    #[arg(long, default_value_t = 512)]
    context: u32,
}

fn main() -> ExitCode {
    let outcome = match Flags::parse().command {
        Command::Train(flags) => train(&flags),
        Command::Check { model } => check(&model),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn train(flags: &Train) -> Result<(), Error> {
    let plan = Plan {
        steps: flags.steps as usize,
        rows: flags.rows,
        row_length: flags.row_length,
        vocabulary: flags.vocabulary,
        rate: flags.rate,
        seed: flags.seed,
    };
    let start = Instant::now();
    let mut average = None;
    let trained = training::train(&plan, |progress| say(&plan, progress, &mut average, start))?;
    gguf::write(&flags.out, &trained, flags.encoding, flags.context)?;
    let parameters: usize = trained.parameters.iter().map(|(_, var)| var.elem_count()).sum();
    let seconds = start.elapsed().as_secs_f64();
    println!("{}: {parameters} parameters, {seconds:.0} s", flags.out.display());
    Ok(())
}

/// One line of progress now and then, with a loss averaged over about thirty steps.
fn say(plan: &Plan, Progress { step, loss }: Progress, average: &mut Option<f32>, start: Instant) {
    let smooth = average.map_or(loss, |average| 0.97 * average + 0.03 * loss);
    *average = Some(smooth);
    let done = step + 1;
    if done % REPORT_EVERY == 0 || done == plan.steps {
        let seconds = start.elapsed().as_secs_f64();
        let speed = (done * plan.rows * plan.row_length) as f64 / seconds;
        println!("step {done:>4} of {}, loss {smooth:.4}, {speed:.0} tokens/s, {seconds:.0} s", plan.steps);
    }
}

fn check(model: &str) -> Result<(), Error> {
    if model.starts_with("http://") {
        return exam::examine(|question| server::ask(model, &question.messages, question.tool), print);
    }
    let speaker = Speaker::open(Path::new(model))?;
    exam::examine(|question| speaker.answer(&in_full(question)), print)
}

/// The conversation with the system turn that a server's chat template would write for the tool.
fn in_full(question: &Question) -> Vec<Message> {
    let offer = question.tool.then(|| Message::system(tools_line(&[exam::TOOL])));
    offer.into_iter().chain(question.messages.iter().cloned()).collect()
}

fn print(mark: &Mark) {
    let verdict = if mark.passed { "" } else { ", too few" };
    println!("{:<24} {:>3} of {:>3}{verdict}", mark.topic, mark.right, mark.asked);
    if let Some((question, reply)) = &mark.mistake {
        let reply = match reply {
            Reply::Words(words) => words.clone(),
            Reply::Call(name, arguments) => format!("{name}({arguments})"),
        };
        println!("    {question} -> {reply}");
    }
}
