//! The reference of all commands from their definitions: man pages, and docs/cli.md.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;

/// The heading of the options that all commands share.
const SHARED: &str = "Bridge";

/// Writes one man page for each command into a folder.
pub fn write_pages(mut command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    command.build();
    write_page(&command, "ecs-bridge", folder)
}

fn write_page(command: &Command, name: &str, folder: &Path) -> io::Result<()> {
    let page = Man::new(command.clone().display_name(name.to_owned()));
    let mut text = Vec::new();
    page.title(name.to_owned()).render(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    // clap_mangen's synopsis has neither the values of options nor `--`.
    let synopsis = synopsis(command).replace('\\', "\\\\").replace('-', "\\-");
    let text =
        match text.split_once(".SH SYNOPSIS\n").and_then(|(before, rest)| Some((before, rest.split_once(".SH ")?.1))) {
            Some((before, after)) => format!("{before}.SH SYNOPSIS\n{synopsis}\n.SH {after}"),
            None => text.into_owned(),
        };
    File::create(folder.join(format!("{name}.1")))?.write_all(text.as_bytes())?;
    for command in visible(command) {
        write_page(command, &format!("{name}-{}", command.get_name()), folder)?;
    }
    Ok(())
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !argument.is_hide_set() && argument.get_id() != "help")
}

/// `ecs-bridge NAME [--option <VALUE>]... <ARGUMENT>`
fn synopsis(command: &Command) -> String {
    let mut text = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let (positional, options): (Vec<_>, Vec<_>) = arguments(command).partition(|argument| argument.is_positional());
    for argument in options {
        let word = option(argument);
        let _ = if argument.is_required_set() { write!(text, " {word}") } else { write!(text, " [{word}]") };
        if matches!(argument.get_action(), ArgAction::Append) {
            text.push_str("...");
        }
    }
    for argument in positional {
        let name = argument.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
        let many = argument.get_num_args().is_some_and(|count| count.max_values() > 1);
        let word = format!("<{name}>{}", if many { "..." } else { "" });
        let dashes = if argument.is_last_set() { "-- " } else { "" };
        let _ = if argument.is_required_set() {
            write!(text, " {dashes}{word}")
        } else {
            write!(text, " [{dashes}{word}]")
        };
    }
    if visible(command).next().is_some() {
        text.push_str(" <COMMAND>");
    }
    text
}

/// `-f, --follow`, or `--name <VALUE>`
fn option(argument: &Arg) -> String {
    let short = argument.get_short().map(|letter| format!("-{letter}, ")).unwrap_or_default();
    // Arg's Display has the long name and the value, as --help shows them.
    format!("{short}{argument}").trim_end_matches("...").to_owned()
}

/// The reference as a page of the documents.
pub fn markdown(mut command: Command) -> String {
    command.build();
    let mut page = String::from(
        "# CLI reference\n\n\
         Use `ecs-bridge` to submit commands, follow their outcomes, change pools and check a deployment. \
         `ecs-bridge COMMAND --help` shows the same text.\n\n\
         <!-- ecs-bridge markdown writes this page. Do not edit it. -->\n\n\
         The following table lists the commands:\n\n| Command | Description |\n|---|---|\n",
    );
    let mut sections = String::new();
    let mut shared = Vec::new();
    section(&command, &mut page, &mut sections, &mut shared);
    page.push_str("\n## Options to find the bridge\n\nThe commands that call a bridge have these options:\n\n");
    page.push_str(&options(shared.iter()));
    page.push_str(
        "\nFlags take precedence over the file of a local stack. The file takes precedence over the outputs of the stack, and those \
         over the environment variables.\n",
    );
    page + &sections
}

fn section(command: &Command, index: &mut String, sections: &mut String, shared: &mut Vec<Arg>) {
    for command in visible(command) {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        if visible(command).next().is_some() {
            section(command, index, sections, shared);
            continue;
        }
        let anchor = name.replace(' ', "-");
        let _ = writeln!(index, "| [`{name}`](#{anchor}) | {} |", cell(&about));
        let text = command.get_long_about().map_or_else(|| about.clone(), ToString::to_string);
        let (of_bridge, own): (Vec<_>, Vec<_>) =
            arguments(command).partition(|argument| argument.get_help_heading() == Some(SHARED));
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let _ = write!(sections, "\n## `{name}`\n\n{}.\n\n```text\n{usage}\n```\n", sentences(&text));
        if !own.is_empty() {
            let _ = write!(sections, "\nThe following table lists the arguments:\n\n{}", options(own.into_iter()));
        }
        if !of_bridge.is_empty() {
            sections.push_str("\nSee also [Options to find the bridge](#options-to-find-the-bridge).\n");
            *shared = of_bridge.into_iter().cloned().collect();
        }
        if let Some(after) = command.get_after_long_help().filter(|_| command.get_after_help().is_none()) {
            let _ = write!(sections, "\n```text\n{after}\n```\n");
        } else if let Some(after) = command.get_after_help() {
            let _ = write!(sections, "\n{after}\n");
        }
    }
}

/// Help texts have no full stop at their end.
fn sentences(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut table = String::from("| Argument | Description |\n|---|---|\n");
    for argument in arguments {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let mut help = help.replace('\n', " ");
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if argument.get_action().takes_values() && !defaults.is_empty() {
            let _ = write!(help, " [default: {}]", defaults.join(" "));
        }
        let values: Vec<_> = argument.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect();
        if argument.get_action().takes_values() && !values.is_empty() {
            let _ = write!(help, " [possible values: {}]", values.join(", "));
        }
        let _ = writeln!(table, "| `{}` | {} |", option(argument), cell(&help));
    }
    table
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
