//! Two containers on two hosts: the kernel's vxlan, and Skep's networks, plain and with each cipher.

mod site;

use super::Asked;
use super::ask::Question;
use super::report::Samples;
use anyhow::Result;
use site::Site;

const QUESTIONS: [Question; 5] = [
    Question::Tcp { streams: 1 },
    Question::Tcp { streams: 4 },
    Question::TcpReverse,
    Question::SmallDatagrams,
    Question::Ping,
];

pub(super) fn run(asked: &Asked) -> Result<Samples> {
    let mut site = Site::build()?;
    let samples = ask_everybody(&site, asked);
    site.tear_down()?;
    samples
}

fn ask_everybody(site: &Site, asked: &Asked) -> Result<Samples> {
    let mut samples = Samples::default();
    asked.each_round(|| {
        for contestant in site.contestants() {
            for question in QUESTIONS {
                asked.interrupt.check()?;
                for (what, figure) in question.ask(&site.pair(contestant))? {
                    samples.add(contestant.name, what, figure);
                }
            }
        }
        Ok(())
    })?;
    Ok(samples)
}
