//! Draws a 3D scene on the GPU and writes it to a PNG file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use pontoon_examples::{Common, Error, finish, open, write_png};
use pontoon_workloads::scene::{Config, Scene, samples_for};

/// Draws a lit 3D scene on the GPU and writes it to a PNG file
#[derive(Parser)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    common: Common,
    /// The file to write
    #[arg(long, default_value = "scene.png", value_name = "FILE.png")]
    out: PathBuf,
    /// Width in pixels
    #[arg(long, default_value_t = Config::default().width)]
    width: u32,
    /// Height in pixels
    #[arg(long, default_value_t = Config::default().height)]
    height: u32,
    /// How far the camera has gone around the scene, in turns
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    turn: f32,
}

fn main() -> ExitCode {
    finish(run(&Flags::parse()))
}

fn run(flags: &Flags) -> Result<(), Error> {
    let gpu = open(&flags.common)?;
    let start = Instant::now();
    let config = Config { width: flags.width, height: flags.height, samples: samples_for(&gpu.adapter) };
    let scene = Scene::new(&gpu.device, &gpu.queue, config)?;
    scene.draw(flags.turn);
    let picture = scene.read()?;
    let seconds = start.elapsed().as_secs_f64();
    write_png(&picture, &flags.out)?;
    if flags.common.json {
        let mut line = gpu.json("scene", seconds);
        line["samples"] = config.samples.into();
        line["sha256"] = picture.sha256().into();
        println!("{line}");
    }
    flags.common.say(format_args!(
        "{} ({}x{}, {} samples per pixel), {seconds:.1} s",
        flags.out.display(),
        config.width,
        config.height,
        config.samples,
    ));
    Ok(())
}
