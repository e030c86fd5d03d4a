use clap::ValueEnum;

use super::*;
use crate::auth::scheme::Scheme;

/// Password fields made by `doveadm pw -s SCHEME -p PASSWORD` of Dovecot 2.3.19.
#[rustfmt::skip]
const DOVECOTS: &[(&str, &str)] = &[
    ("secret", "{PLAIN}secret"),
    ("secret", "{CLEARTEXT}secret"),
    ("secret", "{CLEAR}secret"),
    ("secret", "{PLAIN.B64}c2VjcmV0"),
    ("secret", "{PLAIN.HEX}736563726574"),
    ("secret", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$ERx7epD3HkygFy4BFdIBRw$HMGruvkK9R21d96Y/mKlUlwIqSMQLypSiUCF8MCnGBM"),
    ("secret", "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$JaBn64t1COQ1SPZut13Pug$xG0qXW1hP46h9Ur2SB+qAr4a8qIcQYF2tQ1kT2rzAT0"),
    ("secret", "{SHA512-CRYPT}$6$6BNGsUn7YpaHMiX2$FSe5vAGVbahcDuWw3D4ZhFPQganLdWWzRckiogDyqKAHCjjDHhMLqmbvYMX6grRgqpWrI2n6T8cs94P/smwzK1"),
    ("secret", "{SHA256-CRYPT}$5$zBwS.//PNuiFZWUX$CWflqrEFAd32U8ZcekDOWkv33W2NXM1Fx/wX65V8Rj2"),
    ("secret", "{BLF-CRYPT}$2y$05$2VfBEWZV4HEZ02Q9.hoIUuZDNPBloljie.PDqwu4PVQB.82Indksi"),
    ("secret", "{CRYPT}$2y$05$bYSa9SH1sVHxFKObbnzHjefPdagKS/904rhOlLq/f80eS10QJm0MC"),
    ("secret", "{SSHA512}AnKGXAbJPncTIiS8BPq3xrQfa1+/MS01c1hda5ez1a44dXWi3W7p85HxzU000xFSXjrtFWKjzUd1UQq/1AuaEs2H10M="),
    ("secret", "{SSHA256}nNvYKjBce6RMoG5tU/voV/CCMYAfxq9MBiqRG6s7pVZ06eEZ"),
    ("secret", "{SSHA}8TwjTrfm6ER9cweFQsqCDgulWPKEfd39"),
    ("secret", "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg=="),
    ("secret", "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="),
    ("secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
    ("secret", "{SHA1}5en6G6MezRroT3XKqkdPOmY/BfQ="),
    ("secret", "{SSHA512.HEX}f1cd1f06e5ebda848c6af000b27c79580424a5afca4d3bc1e7f9c79ab6a15e1c16b4bdc6d39390a83c4c525f7c3c6471517d977fcceb31b1df4d4389e1bdbade8aac9c30"),
    ("secret", "{SSHA256.HEX}c24fab3246de82a2a428ab1b4010614bfa0ecb2d0a11ee1f42f15a54ae759b92d2992ea3"),
    ("secret", "{SHA512.HEX}bd2b1aaf7ef4f09be9f52ce2d8d599674d81aa9d6a4421696dc4d93dd0619d682ce56b4d64a9ef097761ced99e0f67265b5f76085e5b0ee7ca4696b2ad6fe2b2"),
    ("secret", "{SHA.HEX}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4"),
    ("secret", "{SHA256.B64}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="),
    ("secret", "{SCRAM-SHA-256}4096,MKmKcT0sXBr0VfUwj5DhHQ==,YLy7ZLl41lTW3K2d8eK/sOiFotGrkYaluKB2dqIZ5bE=,2QsP9MujCo/qgOWtrMrFlbt0xUBBLPU/BYGXA8602h4="),
    ("secret", "{BLF-CRYPT}$2y$08$JsVBaqoGvsWnhMy0Xcmtq.k0fjBcV./ywrFn8XnI0yY7uHG3wDpzq"),
    ("secret", "{SHA512-CRYPT}$6$rounds=10000$Pe7.ob1zzv9CfwiC$gH..3Fi.DpLRS72ckL7G8d6RGju5iyhcL/Mfr19TjF8HGpUs9vBiQ1ZCDlEZJe/i0G7zPGixYHwfJi/C8MSKw0"),
    ("secret", "{SHA256-CRYPT}$5$rounds=10000$jrhhtxxtjDq00r3M$iyM6Byg1crLuqCVbU5ubdT1IuBnvj5RdAaI7WFvs8T7"),
    ("secret", "{CRYPT}$6$CSv/JZvayQgbAo38$XN4Xukic1eY5sMCmygjAWft8U5QR/jbllSc4s8qEC1BSzWupCi9SNFif0ICvbSfHHzu6BMQDUGCV9GBnY8jJF0"),
    ("secret", "{CRYPT}$5$Vsvr5vrleLuVL7mZ$Gf4inYXe567Kl/edGpupfMdYDaE6HaeV.E0TgRu2XY6"),
    ("secret", "{SHA256}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"),
    ("secret", "{SHA512-CRYPT.B64}JDYkOGJpUGNwZHRoaGNSNzdyRiR3U2haNG9XZUNWNGlldEhRSFFMYkl3S0tuSVhSandzN0tHSUJHRGsyR2xQM1dqYi9uY2dNR01JbVk1WXZmN2FhUzUxckdMT0YvVkFuMjJuMVlNSHhkMQ=="),
    ("pässword é€ with spaces", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$3QszMZuyx2mYLG3SzmgrnA$QkXtnkTt9DnmaU22pE72fqIn2SdzUttWjXL5qUww5Vk"),
    ("pässword é€ with spaces", "{SHA512-CRYPT}$6$TWBvQ8q.an5/r0My$kFCrShbayB8XBdmDs/80ZW98AiE9WvwhMgCFX.PJHip7wOxWqR8BcH5i8Pr37ZjvnKaJbZcF6Ht7X4Bw1KGLq1"),
    ("pässword é€ with spaces", "{BLF-CRYPT}$2y$05$2aTFSZ5f71DDh6brT6dgDOiXNJHCnPV/NUV5.4e/vycLVPkkcWYK."),
    ("pässword é€ with spaces", "{SSHA512}P9Tj0rd4nc292x0JYKWipMo5Q37x2VhBa6BGOFQjHWyK1VOXYO5OkJpqTXKtK488whNQ7Y5rWIVyZ6BsXeDrnnojMaI="),
    ("pässword é€ with spaces", "{SCRAM-SHA-256}4096,Im3NgWxcFL1j/4Aahleyrg==,idQ0k2sT5DO1gLD6N1dtsR1HvO2ROCFvlf6lw5bUEhs=,QJ2NQPogR/4PBu9Uv+ukfPljlkzDPqMbVOjfCDFNBhQ="),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{SHA512-CRYPT}$6$AAlXE93z.wiqPD6F$/eMTVkFBb4yM77.bhvyUzH7n4EcGycQud1ehnWxN7NqsxZquBltnGCaKhRgXNkVabRzXEtJPIWNVEaBZOzxAA/"),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{SHA256-CRYPT}$5$.4UHCvvrnQ8fLEiZ$0PA3upzbJ/52QaXYyEt8zR1p9P6BH4WOzgfyBLH3Fu/"),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{SSHA}TkiRXrKy+VsZJ1H5HPtEe0eoadA6ODaE"),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx!", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$8SlgpuAiIz8MQ2x/3ks6AQ$5xr/r4rrafOa8M4v/sAn3G8QvRqDT1hLSY3CG+CYOpo"),
];

fn parse(field: &str) -> Result<Secret, BadSecret> {
    Secret::parse(field.as_bytes())
}

#[test]
fn fields_made_by_dovecot_are_accepted() {
    for (password, field) in DOVECOTS {
        let secret = parse(field).unwrap_or_else(|error| panic!("{field}: {error}"));
        assert!(secret.matches(password.as_bytes()), "{field}");
        for wrong in ["", "Secret", "secret ", &password[1..], &format!("x{password}")] {
            assert!(!secret.matches(wrong.as_bytes()), "{field} {wrong:?}");
        }
    }
}

/// Fields of Dovecot 2.3.19's `doveadm pw`, and lines of /etc/shadow.
#[test]
fn fields_of_older_programs_are_accepted() {
    for field in [
        "{MD5-CRYPT}$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.",
        "{CRYPT}$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.",
        "$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.",
        "{PBKDF2}$1$TGC/7fCfv2BRPbbe$5000$349a5afd839eca134dd6da7dacb960c9ef965950",
        "{SCRAM-SHA-1}4096,wOEXq7XC8v1Dt8xyzZg8wg==,v9pgOkfVkLfTHHdD5N+Y3M2O+1c=,+OyBYELEWHx8jQJuiKMxrampYEo=",
        "{SMD5}Vu/oKzAGhXDUOwgu0JO7fYCSUSc=",
        "{LDAP-MD5}KrljkMfb40Od500MmwsXZw==",
        "{PLAIN-MD5}2ab96390c7dbe3439de74d0c9b0b1767",
        "{CRAM-MD5}60ebd8347e945af7703b0d59d8bfedc236234196f561c057cf5a5d5a6e58304a",
        "{CRYPT}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PmNgGTLMFjJn.URBv11CpTEm5RwlKtPjRtztKe6.b33",
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PmNgGTLMFjJn.URBv11CpTEm5RwlKtPjRtztKe6.b33",
    ] {
        let secret = parse(field).unwrap_or_else(|error| panic!("{field}: {error}"));
        assert!(secret.matches(b"hunter2"), "{field}");
        assert!(!secret.matches(b"hunter3") && !secret.matches(b""), "{field}");
    }
}

#[test]
fn accounts_of_the_system_without_a_password_are_locked() {
    for field in ["!", "*", "!!", "!$6$salt$hash", "{CRYPT}!", "{CRYPT}*"] {
        assert_eq!(parse(field).unwrap_err(), BadSecret::Locked, "{field}");
    }
}

#[test]
fn only_quick_digests_are_weak() {
    for (field, is_weak) in [
        ("{PLAIN-MD5}2ab96390c7dbe3439de74d0c9b0b1767", true),
        ("{SMD5}Vu/oKzAGhXDUOwgu0JO7fYCSUSc=", true),
        ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", true),
        ("$1$Q4FstVWN$CLc8X7s/Raxuogk8Bb6D0.", true),
        ("{SSHA}8TwjTrfm6ER9cweFQsqCDgulWPKEfd39", false),
        ("{PLAIN}x", false),
    ] {
        assert_eq!(parse(field).unwrap().is_weak(), is_weak, "{field}");
    }
}

#[test]
fn schemes_are_case_insensitive() {
    assert!(parse("{plain}x").unwrap().matches(b"x"));
    assert!(parse("{Plain.Hex}7A7a").unwrap().matches(b"zz"));
}

#[test]
fn fields_made_by_this_server_are_accepted() {
    for scheme in Scheme::value_variants() {
        for password in ["secret", "a:b c", "pässword"] {
            let field = scheme.field(password.as_bytes());
            let name = scheme.to_possible_value().unwrap();
            assert!(field.starts_with(&format!("{{{}", name.get_name())) && !field.contains(':'), "{field}");
            let secret = parse(&field).unwrap();
            assert!(secret.matches(password.as_bytes()) && !secret.matches(b"Secret"), "{field}");
        }
    }
    assert_ne!(Scheme::Argon2id.field(b"secret"), Scheme::Argon2id.field(b"secret"));
}

/// Dovecot and crypt(3) ignore the rest, too.
#[test]
fn bcrypt_uses_the_first_72_octets_of_a_longer_password() {
    let long = "x".repeat(BCRYPT_LIMIT);
    let secret = parse(&Scheme::BlfCrypt.field(long.as_bytes())).unwrap();
    assert!(secret.matches(long.as_bytes()) && secret.matches(format!("{long}y").as_bytes()));
    assert!(!secret.matches(&long.as_bytes()[1..]));
}

#[test]
fn an_unusable_field_is_refused_with_its_reason() {
    for field in ["secret", "", "{}x", "{PLAIN", "PLAIN}x", "x{PLAIN}x", "{a b}x"] {
        assert_eq!(parse(field).unwrap_err(), BadSecret::NoScheme, "{field}");
    }
    for (field, scheme) in [("{GSSAPI}x", "GSSAPI"), ("{PLAIN.rot13}x", "PLAIN.ROT13"), ("{x}", "X")] {
        assert_eq!(parse(field).unwrap_err(), BadSecret::UnknownScheme(scheme.into()), "{field}");
    }
    let argon2i =
        "{ARGON2ID}$argon2i$v=19$m=4096,t=3,p=1$LFURWqmFjS1o5FUR4CJVYQ$hmzC6ViktqMi6GmWTgRjJF2fpgKxFoHiMRJgeLzcWI0";
    for field in [
        argon2i,
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$tV2LFYvAfedRUEgVc2DXCw",
        "{ARGON2ID}",
        "{SHA512-CRYPT}$5$M1yPT.jMuoBPZmkD$jAumdrYch7.KkJjggJC6qqvTmK8Px5DYe6tGUG6oEtC",
        "{SHA256-CRYPT}$5$M1yPT.jMuoBPZmkD$jAumdrYch7",
        "{SHA256-CRYPT}$5$rounds=5$M1yPT.jMuoBPZmkD$jAumdrYch7.KkJjggJC6qqvTmK8Px5DYe6tGUG6oEtC",
        "{CRYPT}$1$salt$hash",
        "$6$salt$hash",
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$short",
        "{MD5-CRYPT}$1$x$y",
        "{PBKDF2}$1$salt$0$349a5afd839eca134dd6da7dacb960c9ef965950",
        "{CRAM-MD5}60eb",
        "{LDAP-MD5}KrljkMfb40Od500MmwsX",
        "{SCRAM-SHA-1}4096,a,b,c",
        "{CRYPT}$2x$05$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS",
        "{SSHA}W+upOdAqMoI4",
        "{SHA256}",
        "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/UnolsA",
        "{PLAIN.hex}abc",
        "{PLAIN.hex}gg",
        "{PLAIN.b64}*",
        "{SCRAM-SHA-256}4096,a,b,c",
    ] {
        assert!(matches!(parse(field).unwrap_err(), BadSecret::Malformed(_)), "{field}");
    }
    for field in [
        // made by `doveadm pw -s ARGON2ID -r 5`, which takes a gigabyte for each login
        "{ARGON2ID}$argon2id$v=19$m=1048576,t=5,p=1$CUPVuXn1IqbMT/NrC91Fpw$/nyIQ8Cu2cOAm7fMscYHUdnrOIUMiRorZPhsezGpNlE",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=4000000,p=1$tV2LFYvAfedRUEgVc2DXCw$C6rLVzMbz9mn/OIvue3cj7yp0RVkGmTE6S+rL0ppyDc",
        "{BLF-CRYPT}$2y$31$fo4ZtJ06qtxQCNjuaPwbYObJC/5Td6vfua19SxBVXAyn6p2g/5QLS",
        "{CRYPT}$5$rounds=999999999$M1yPT.jMuoBPZmkD$jAumdrYch7.KkJjggJC6qqvTmK8Px5DYe6tGUG6oEtC",
    ] {
        assert!(matches!(parse(field).unwrap_err(), BadSecret::TooCostly(_)), "{field}");
    }
}

#[test]
fn no_error_or_debug_text_contains_a_password_field() {
    for field in ["hunter2", "{MD5}hunter2", "{SHA}hunter2", "{hunter2", "{PLAIN.x}hunter2"] {
        assert!(!parse(field).unwrap_err().to_string().contains("hunter2"), "{field}");
    }
    assert!(!format!("{:?}", parse("{PLAIN}hunter2").unwrap()).contains("hunter2"));
}
