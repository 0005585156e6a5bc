//! Goal: what the fuzzer has found is handled for ever. Method: every file of the corpora goes
//! through its target; each target has a corpus.

use std::fs;
use std::path::Path;

#[test]
fn every_input_that_was_found_is_handled() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in fuzz::TARGETS {
        let files = fs::read_dir(corpora.join(target.name)).expect("a corpus of each target");
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            (target.run)(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "the corpus of {} is empty", target.name);
    }
}
