#![no_main]
libfuzzer_sys::fuzz_target!(|octets: &[u8]| pop3d_fuzz::peep_fields(octets));
