//! What the tests of logging in need: Chromium with its driver, and an OpenID provider on Node.js. Finds them, or installs them.

use crate::error::{Context, Error, Result};
use crate::process::{command, is_there, output, root, run as execute, target};

/// The provider, with the versions of all that it is made of.
const PROVIDER: &str = "crates/server/tests/provider";
const FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// Makes sure that all of it is there, so that no test has to install anything while others run.
pub fn need() -> Result<()> {
    if !is_there("chromedriver", &[]) {
        install("chromedriver", &["chromium", "chromium-driver"])?;
    }
    if !is_there("npm", &[]) {
        install("npm", &["nodejs", "npm"])?;
    }
    provider()
}

fn install(program: &str, packages: &[&str]) -> Result<()> {
    let is_root = output(command("id").arg("--user")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !is_there("apt-get", &[]) {
        let packages = packages.join(" ");
        return Err(Error::new(format!("no {program}: logging in is tested in a real browser. On Debian: apt-get install {packages}")));
    }
    let apt = |arguments: &[&str]| execute(command("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments));
    apt(&["update", "--quiet"])?;
    apt(&[&["install", "--quiet", "--yes", "--no-install-recommends"], packages].concat())
}

/// Installs the provider beside what is built, unless it is there in the versions that are wanted.
fn provider() -> Result<()> {
    let folder = target().join("oidc-provider");
    let installed = folder.join("node_modules/oidc-provider").exists();
    let same = |name: &&str| {
        std::fs::read(root().join(PROVIDER).join(name))
            .is_ok_and(|wanted| std::fs::read(folder.join(name)).is_ok_and(|have| have == wanted))
    };
    if installed && FILES.iter().all(same) {
        return Ok(());
    }
    std::fs::create_dir_all(&folder).context(|| format!("cannot make {}", folder.display()))?;
    for name in FILES {
        std::fs::copy(root().join(PROVIDER).join(name), folder.join(name)).context(|| format!("cannot copy {name}"))?;
    }
    execute(command("npm").current_dir(&folder).args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"]))
}
