//! Trains a network to read handwritten digits on the GPU, and says how well it reads new ones.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use pontoon_examples::{Common, Error, finish, open};
use pontoon_workloads::digits::Trainer;

/// Trains a network to read handwritten digits on the GPU
#[derive(Parser)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    common: Common,
    /// Passes over the 1,437 training images
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
    /// Seed of the first weights and of the order of the images
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

fn main() -> ExitCode {
    finish(run(&Flags::parse()))
}

fn run(flags: &Flags) -> Result<(), Error> {
    let gpu = open(&flags.common)?;
    let start = Instant::now();
    let mut trainer = Trainer::new(&gpu.device, &gpu.queue, flags.seed)?;
    for epoch in 1..=flags.epochs {
        for _ in 0..trainer.steps_per_epoch() {
            trainer.step();
        }
        // One look per pass; the steps themselves never wait for the GPU.
        let loss = trainer.loss()?;
        progress(epoch, flags.epochs, loss);
    }
    let accuracy = trainer.test_accuracy()?;
    let seconds = start.elapsed().as_secs_f64();
    if flags.common.json {
        let mut line = gpu.json("digits", seconds);
        line["steps"] = trainer.steps().into();
        line["accuracy"] = accuracy.fraction().into();
        println!("{line}");
    }
    flags.common.say(format_args!(
        "test accuracy {:.2} % ({} images), {} steps, {seconds:.1} s",
        accuracy.fraction() * 100.0,
        accuracy.total,
        trainer.steps(),
    ));
    Ok(())
}

/// A bar that redraws itself on a terminal, and a line every few passes anywhere else. On standard error:
/// the result is what goes to standard output.
fn progress(epoch: u32, epochs: u32, loss: f32) {
    let mut out = std::io::stderr();
    if !out.is_terminal() {
        if epoch == epochs || epoch.is_multiple_of(5) {
            eprintln!("epoch {epoch:>2} of {epochs}, loss {loss:.4}");
        }
        return;
    }
    let filled = (epoch * 40 / epochs) as usize;
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(40 - filled));
    let end = if epoch == epochs { "\n" } else { "" };
    eprint!("\r{bar} epoch {epoch} of {epochs}, loss {loss:.4} {end}");
    // A bar that cannot be drawn is no reason to stop training.
    let _ = out.flush();
}
