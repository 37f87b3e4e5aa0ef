//! Draws the scene on a real adapter.

mod common;

use pontoon_workloads::scene::{self, Config, Scene};

#[test]
fn the_picture_is_full_of_colours_and_repeats_itself_to_the_bit() {
    let (adapter, device, queue) = common::open();
    let config = Config { width: 330, height: 220, samples: scene::samples_for(&adapter) };
    let scene = Scene::new(&device, &queue, config).unwrap();
    let picture = scene.render().unwrap();
    common::keep(&picture, "scene-small.png");
    assert_eq!((picture.width, picture.height), (330, 220));
    assert!(picture.distinct_colours() > 10_000);

    scene.draw(0.25);
    let from_the_side = scene.read().unwrap();
    assert!(from_the_side.distinct_colours() > 10_000);
    assert_ne!(from_the_side.sha256(), picture.sha256());
    assert_eq!(scene.render().unwrap().sha256(), picture.sha256());
}

#[test]
fn one_sample_per_pixel_will_do() {
    let (_, device, queue) = common::open();
    let config = Config { width: 96, height: 64, samples: 1 };
    let picture = Scene::new(&device, &queue, config).unwrap().render().unwrap();
    assert!(picture.distinct_colours() > 2_000);
}

#[test]
fn sizes_that_make_no_picture_are_refused_in_words() {
    let (_, device, queue) = common::open();
    let config = Config { samples: 3, ..Config::default() };
    let error = Scene::new(&device, &queue, config).err().unwrap();
    assert_eq!(error.to_string(), "samples is 3, but it must be 1 or 4");
}
