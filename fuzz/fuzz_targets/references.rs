//! References of images: what is read is written so that it reads as the same again.

#![no_main]

use isobench::image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    for written in [reference.to_string(), reference.familiar()] {
        assert_eq!(written.parse::<Reference>().as_ref(), Ok(&reference), "{written}");
    }
    let named = reference.clone().or_latest();
    assert_eq!(named.to_string().parse(), Ok(named));
});
