//! Denoises the photograph on a real adapter.

mod common;

use pontoon_workloads::photo::{self, Denoiser};

const SIGMA: f32 = 25.0;

#[test]
fn denoising_brings_the_photo_closer_to_the_clean_one() {
    let (_, device, queue) = common::open();
    // The face: an odd size, so that the read-back has padding and the last tiles stick out.
    let clean = photo::clean().unwrap().crop(150, 20, 229, 301).unwrap();
    let noisy = photo::add_noise(&clean, SIGMA, 1);
    let denoiser = Denoiser::new(&device, &queue, (229, 301), SIGMA).unwrap();
    let denoised = denoiser.denoise(&noisy).unwrap();
    common::keep(&noisy, "before.png");
    common::keep(&denoised, "after.png");

    let before = photo::psnr(&clean, &noisy).unwrap();
    let after = photo::psnr(&clean, &denoised).unwrap();
    println!("PSNR {before:.2} dB -> {after:.2} dB");
    assert!(after > before + 5.0, "PSNR {before:.2} dB -> {after:.2} dB");
    assert_eq!(denoised.sha256(), denoiser.denoise(&noisy).unwrap().sha256());
}

#[test]
fn a_picture_of_another_size_is_refused_in_words() {
    let (_, device, queue) = common::open();
    let denoiser = Denoiser::new(&device, &queue, (64, 64), SIGMA).unwrap();
    let error = denoiser.denoise(&photo::clean().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "picture is 512x600 pixels, expected 64x64");
    let error = Denoiser::new(&device, &queue, (0, 64), SIGMA).err().unwrap();
    assert_eq!(error.to_string(), "width is 0, but it must be at least 1");
}
