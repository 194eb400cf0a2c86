//! What a processor calls itself, and which of its instructions the library's kernels choose by: they cannot be pinned, so both
//! are in the fingerprint.

use std::sync::OnceLock;

/// Instructions that kernels are chosen by.
const FLAGS: &[&str] = &[
    "sse4_1",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "fphp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
];

/// A processor.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Cpu {
    /// E.g. `AMD EPYC 7B13`.
    pub(in crate::sandbox) name: String,
    /// E.g. `avx avx2 f16c fma sse4_1`.
    pub(in crate::sandbox) instructions: String,
}

/// The processor of this machine. Asked once: a jailed process cannot ask any more.
pub(in crate::sandbox) fn own() -> &'static Cpu {
    static OWN: OnceLock<Cpu> = OnceLock::new();
    OWN.get_or_init(|| parse(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()))
}

fn parse(cpuinfo: &str) -> Cpu {
    let field = |name: &str| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
    };
    // Arm processors have numbers instead of a name.
    let arm = || field("CPU part").map(|part| format!("{} {part}", field("CPU implementer").unwrap_or_default()));
    let model =
        field("model name").map(str::to_owned).or_else(arm).unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
    let mut flags: Vec<&str> = flags.split_whitespace().filter(|flag| FLAGS.contains(flag)).collect();
    flags.sort_unstable();
    Cpu { name: super::text(&model), instructions: flags.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_with_what_kernels_choose_by() {
        let intel = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu avx2 sse4_1 avx rdrand\n\nprocessor\t: 1\nmodel name\t: Other\n";
        let cpu = |name: &str, instructions: &str| Cpu { name: name.to_owned(), instructions: instructions.to_owned() };
        assert_eq!(parse(intel), cpu("Some CPU @ 2.00GHz", "avx avx2 sse4_1"));
        let arm = "Features\t: fp asimd i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n";
        assert_eq!(parse(arm), cpu("0x41 0xd40", "asimd i8mm"));
        assert_eq!(parse(""), cpu(std::env::consts::ARCH, ""));
    }
}
