//! Trains a Burn model to read handwritten digits on the GPU, and says how well it reads new ones.

#![forbid(unsafe_code)]

mod data;
mod error;
mod gpu;
mod model;
mod train;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use error::Error;
use train::Trainer;

/// Trains a Burn model to read handwritten digits on the GPU
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Use this machine's own GPU and not the one behind Pontoon
    #[arg(long)]
    native: bool,
    /// Print nothing but one line of JSON
    #[arg(long)]
    json: bool,
    /// Passes over the 1,437 training images
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    epochs: u32,
    /// Seed of the first weights and of the order of the images
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), Error> {
    let say = |line: String| {
        if !flags.json {
            println!("{line}");
        }
    };
    let route = if flags.native { "native" } else { "bridge" };
    let gpu = gpu::open(flags.native)?;
    say(format!("{} ({}, {route})", gpu.info.name, gpu.info.backend));

    let start = Instant::now();
    let mut trainer = Trainer::new(gpu.device, flags.seed)?;
    for epoch in 1..=flags.epochs {
        let loss = trainer.epoch()?;
        let seconds = start.elapsed().as_secs_f64();
        say(format!("epoch {epoch:>2} of {}, loss {loss:.4}, {seconds:.1} s", flags.epochs));
    }
    let accuracy = trainer.test_accuracy()?;
    let seconds = start.elapsed().as_secs_f64();

    say(format!(
        "test accuracy {:.2} % ({} images), {} steps, {seconds:.1} s",
        accuracy * 100.0,
        data::TEST_IMAGES,
        trainer.steps(),
    ));
    if flags.json {
        let line = serde_json::json!({
            "program": "burn-digits",
            "adapter": gpu.info.name,
            "backend": gpu.info.backend.to_string(),
            "route": route,
            "seconds": seconds,
            "steps": trainer.steps(),
            "accuracy": accuracy,
        });
        println!("{line}");
    }
    Ok(())
}
