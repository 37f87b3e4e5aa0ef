//! Whether everything would compile on a Mac, as far as that can be told without one: the compiler's checks of types and
//! lifetimes, for Apple's target. Nothing is linked, and nothing runs.

use std::path::{Path, PathBuf};

use crate::{
    debian::{self, Folder},
    project::Project,
    stages::{Output, Stages},
};

const TARGET: &str = "aarch64-apple-darwin";

/// Debian's newest compiler with the standard library's source, from which cargo builds that for Apple's target, and a C
/// compiler that has Apple's headers, from PyPI (`$2` is a Python with pip).
const TOOLS: &str = r#"
needs() { apt-cache depends "$1" | sed -n "s/.*Depends: \($2[^ ]*\)$/\1/p" | head -n 1; }
fetch() {
    library=$(needs libstd-rust-web-dev 'libstd-rust-web-[0-9]')
    test -n "$library" && apt-get download rustc-web libstd-rust-web-dev rust-web-src "$library" "$(needs "$library" libllvm)"
}
fetch || { apt-get update && fetch; }
unpack
# Of the source only the library is needed.
find usr/src/rustc-* -mindepth 1 -maxdepth 1 ! -name library -exec rm -rf {} +
"$2" -m pip download -q --no-deps -d wheel ziglang==0.17.1
"$2" -m zipfile -e wheel/ziglang-*.whl zig
chmod +x zig/ziglang/zig
cat > cc << 'END'
#!/bin/bash
# The options by which other compilers are told the target.
words=()
for word in "$@"; do
    case "$word" in --target=* | -target | arm64-apple-* | -arch | arm64 | -mmacosx-version-min=*) ;; *) words+=("$word") ;; esac
done
exec "${0%/*}/zig/ziglang/zig" cc -target aarch64-macos "${words[@]}"
END
printf '#!/bin/bash\nexec "${0%%/*}/zig/ziglang/zig" ar "$@"\n' > ar
chmod +x cc ar
rm -rf wheel
mv "$1.new" "$1"
"#;

/// Checks the whole workspace; not, visibly, where the tools are not to be had.
pub fn check(project: &Project, stages: &mut Stages, python: &Path) -> anyhow::Result<()> {
    let title = "a compiler for a Mac's types, from Debian and PyPI (250 MB, the first time)";
    let folder = Folder {
        only: debian::X86,
        title,
        path: project.mac(),
        parts: &[debian::FOLDER, TOOLS],
        argument: Some(python),
    };
    let Some(tools) = folder.may(stages) else { return Ok(()) };
    let path = |name: &str| tools.join(name);
    let libraries: Vec<PathBuf> = vec![path("usr/lib/x86_64-linux-gnu"), path("usr/lib")];
    let mut cargo = project.cargo(&["check", "--workspace", "--target", TARGET]);
    cargo.args(["-Zbuild-std=std,panic_abort", "--target-dir"]).arg(path("built"));
    // `-Z` options are for those who say that they know.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", path("usr/bin/rustc"));
    cargo.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
    cargo.env("CC_aarch64_apple_darwin", path("cc")).env("AR_aarch64_apple_darwin", path("ar"));
    cargo.env("CRATE_CC_NO_DEFAULTS", "1");
    stages.run("the types of a Mac's build", Output::Logged, &mut cargo)
}
