//! wal2json's output: what is read makes records that the log takes, each known again when it comes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muniment_fuzz::check_envelopes;
use muniment_fuzz::envelope::Format;

fuzz_target!(|body: &[u8]| check_envelopes(Format::Wal2Json, body));
