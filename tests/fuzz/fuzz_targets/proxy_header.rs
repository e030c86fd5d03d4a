#![no_main]
libfuzzer_sys::fuzz_target!(|octets: &[u8]| pop3d_fuzz::proxy_header(octets));
