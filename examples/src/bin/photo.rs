//! Puts noise on a photograph, takes it out again on the GPU, and writes both to PNG files.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use pontoon_examples::{Common, Error, finish, open, write_png};
use pontoon_workloads::photo::{self, Denoiser};

/// Takes the noise out of a photograph on the GPU
#[derive(Parser)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    common: Common,
    /// The folder for before.png and after.png; made if it is not there
    #[arg(long, default_value = ".", value_name = "DIR")]
    out_dir: PathBuf,
    /// Deviation of the noise, in steps of 1/255
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u8).range(1..=100))]
    noise: u8,
}

fn main() -> ExitCode {
    finish(run(&Flags::parse()))
}

fn run(flags: &Flags) -> Result<(), Error> {
    let gpu = open(&flags.common)?;
    let start = Instant::now();
    let sigma = f32::from(flags.noise);
    let clean = photo::clean()?;
    let noisy = photo::add_noise(&clean, sigma, 1);
    let size = (clean.width, clean.height);
    let denoised = Denoiser::new(&gpu.device, &gpu.queue, size, sigma)?.denoise(&noisy)?;
    let seconds = start.elapsed().as_secs_f64();

    std::fs::create_dir_all(&flags.out_dir)
        .map_err(|source| Error::Write { path: flags.out_dir.clone(), source })?;
    write_png(&noisy, &flags.out_dir.join("before.png"))?;
    write_png(&denoised, &flags.out_dir.join("after.png"))?;
    let [before, after] = [&noisy, &denoised].map(|image| photo::psnr(&clean, image));
    let (before, after) = (before?, after?);
    if flags.common.json {
        let mut line = gpu.json("photo", seconds);
        line["psnr_before"] = before.into();
        line["psnr_after"] = after.into();
        line["sha256"] = denoised.sha256().into();
        println!("{line}");
    }
    flags.common.say(format_args!(
        "{} and after.png, {before:.1} dB before, {after:.1} dB after, {seconds:.1} s",
        flags.out_dir.join("before.png").display(),
    ));
    Ok(())
}
