//! Signals by name and by number.

/// The names of the classic signals, beginning with number 1, as Linux numbers them on x86 and ARM.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Second names of some.
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// The first real-time signal, as the kernel numbers them; C libraries keep the first two or three for themselves.
const RTMIN: i32 = 34;
/// The last signal.
const RTMAX: i32 = 64;

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no signal; write a name or a number from 1 to 64, as in TERM, SIGINT, 9 or RTMIN+3")]
pub struct SignalError(pub String);

/// The number of a signal by its name, with or without `SIG`, in any case, or by its number.
///
/// # Errors
/// When it names none.
pub fn parse(text: &str) -> Result<i32, SignalError> {
    number(text).ok_or_else(|| SignalError(text.to_owned()))
}

fn number(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i32>().ok()).flatten();
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (_, Some("")) => Some(RTMAX),
        (Some(rest), _) => RTMIN.checked_add(offset(rest.strip_prefix('+')?)?),
        (_, Some(rest)) => RTMAX.checked_sub(offset(rest.strip_prefix('-')?)?),
        (None, None) => None,
    };
    if let Some(number) = real_time {
        return (RTMIN..=RTMAX).contains(&number).then_some(number);
    }
    let classic = NAMES.iter().position(|known| *known == name).map(|at| at as i32 + 1);
    classic.or_else(|| ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number))
}

/// The name of a signal, as in `SIGTERM` or `SIGRTMIN+3`; `None` when there is no signal of this number.
#[must_use]
pub fn name(number: i32) -> Option<String> {
    match number {
        RTMIN => Some("SIGRTMIN".to_owned()),
        RTMAX => Some("SIGRTMAX".to_owned()),
        35..=49 => Some(format!("SIGRTMIN+{}", number - RTMIN)),
        50..=63 => Some(format!("SIGRTMAX-{}", RTMAX - number)),
        _ => NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).map(|name| format!("SIG{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("15", 15),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("WINCH", 28),
            ("POLL", 29),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn the_c_librarys_numbers() {
        for signal in nix::sys::signal::Signal::iterator() {
            assert_eq!(parse(signal.as_str()), Ok(signal as i32));
            assert_eq!(name(signal as i32).unwrap(), signal.as_str());
        }
    }

    #[test]
    fn none() {
        for text in [
            "",
            "0",
            "65",
            "-1",
            "+9",
            "SIG",
            "SIGSIGTERM",
            "TERM ",
            "RTMIN+",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN++1",
            "999999999999999999999",
            "RTMIN+99999999999999",
        ] {
            assert_eq!(parse(text), Err(SignalError(text.to_owned())), "{text}");
        }
        assert_eq!((name(0), name(65), name(-1), name(32)), (None, None, None, None));
    }

    #[test]
    fn every_name_is_understood() {
        for number in 1..=64 {
            if let Some(name) = name(number) {
                assert_eq!(parse(&name), Ok(number), "{name}");
            }
        }
    }
}
