# What runs on the device, as `sh -c` with this constant text: nothing of the user is in it.
# Arguments are lines of standard input, answers are lines of standard output. There is no single
# quote in it, because it stands in single quotes on its way through the login shell.
#
# docs/deploy.md describes the folder: current and previous are links to versions/NAME/bundle,
# NAME ends with the sha256 of versions/NAME/sums, and whatever no link names is rubbish.

export LC_ALL=C

answer() { printf "compress-export: %s\n" "$*"; }

fail() {
    answer "error $*"
    exit 1
}

# failed MESSAGE: a command could not write; the first word says why.
failed() {
    case $1 in
        *"No space left"* | *"quota exceeded"*) fail no-space "$1" ;;
        *"Permission denied"* | *"Read-only"* | *"not permitted"*) fail not-writable "$1" ;;
    esac
    fail broken "$1"
}

need() {
    for tool in "$@"; do
        command -v "$tool" > /dev/null 2>&1 || fail no-tool "$tool"
    done
}

# One process at a time, where the device has flock; the kernel frees the lock with the process.
lock() {
    command -v flock > /dev/null 2>&1 || return 0
    [ -w .compress-export ] || fail not-writable "belongs to someone else"
    exec 9>> .compress-export
    flock -n 9 || fail busy
}

# name_of LINK: the NAME that a link leads to, nothing where there is no link.
name_of() {
    target=$(readlink "$1") || return 0
    target=${target#versions/}
    printf "%s" "${target%/bundle}"
}

# prepare LINK NAME: what LINK is to become, beside it.
prepare() {
    rm -f "$1.new"
    message=$(ln -s "versions/$2/bundle" "$1.new" 2>&1) || failed "$message"
}

# rename LINK: what was prepared takes its place, in one step, so that LINK is the old or the new at
# any moment. An old busybox has no mv -T; there Python does it.
rename() {
    message=$(mv -fT "$1.new" "$1" 2>&1) ||
        python3 -c "import os, sys; os.replace(*sys.argv[1:])" "$1.new" "$1" 2> /dev/null ||
        failed "$message"
}

# switch NAME OLD: make NAME the current version, and OLD, where there is one, the previous.
switch() {
    [ -z "$2" ] || prepare previous "$2"
    prepare current "$1"
    rename current
    [ -z "$2" ] || rename previous
}

# Finish or undo a switch that was cut off: where its first rename happened, the second follows.
settle() {
    old=$(name_of previous.new)
    [ -z "$old" ] || [ "$old" = "$(name_of current)" ] || rename previous
    rm -f current.new previous.new
}

# altered FOLDER DIGEST: the files that are not as FOLDER/sums says, or "sums" where these are not
# those with this digest.
altered() (
    cd "$1/bundle" 2> /dev/null || { echo bundle && exit; }
    case $(sha256sum < ../sums 2> /dev/null) in
        "$2 "*) ;;
        *) echo sums && exit ;;
    esac
    sha256sum -c ../sums 2> /dev/null | grep -v ": OK$" | sed "s/: FAILED.*//" | tr "\n" " "
)

# Remove what no link names. A rename comes first: nothing half removed keeps a good name.
clean() {
    kept=" $(name_of current) $(name_of previous) "
    for entry in versions/*; do
        [ -e "$entry" ] || continue
        case $kept in *" ${entry#versions/} "*) continue ;; esac
        case $entry in
            *.trash) ;;
            *) mv "$entry" "$entry.trash" 2> /dev/null && entry=$entry.trash || continue ;;
        esac
        rm -rf "$entry"
    done
}

# Make the folder, which has to be empty or ours, and stay in it.
open_folder() {
    message=$(mkdir -p "$path" 2>&1) || failed "$message"
    cd "$path" 2> /dev/null || fail not-writable "cannot be entered"
    [ -e .compress-export ] || [ -z "$(ls -A)" ] || fail not-ours
    message=$(touch .compress-export 2>&1) || failed "$message"
    message=$(mkdir -p versions 2>&1) || failed "$message"
    lock
    settle
}

enter_folder() {
    cd "$path" 2> /dev/null && [ -e .compress-export ] || fail nothing-there
}

# receive NAME: unpack the tar archive that follows on standard input, and check its sums.
receive() {
    part=versions/$1.part
    [ ! -e "versions/$1" ] || fail busy
    message=$(mkdir "$part" 2>&1 && tar -xf - -C "$part" 2>&1) || {
        rm -rf "$part"
        failed "$message"
    }
    wrong=$(altered "$part" "${1##*-}")
    [ -z "$wrong" ] || {
        rm -rf "$part"
        fail damaged "$wrong"
    }
}

deploy() {
    IFS= read -r name || exit 1
    need readlink sha256sum tar
    open_folder
    was=$(name_of current)
    wrong_now=
    if [ -n "$was" ]; then
        wrong_now=$(altered "versions/$was" "${was##*-}")
        [ "$wrong_now${was##*-}" != "${name##*-}" ] || { answer "same $was" && exit; }
        [ -z "$wrong_now" ] || answer "altered $wrong_now"
    fi
    clean
    answer send
    receive "$name"
    sync
    message=$(mv "versions/$name.part" "versions/$name" 2>&1) || failed "$message"
    [ -z "$wrong_now" ] || was=
    switch "$name" "$was"
    sync
    clean
    answer "done $name"
}

rollback() {
    need readlink sha256sum
    enter_folder
    lock
    settle
    was=$(name_of current)
    back=$(name_of previous)
    [ -n "$back" ] && [ "$back" != "$was" ] || fail no-previous
    wrong=$(altered "versions/$back" "${back##*-}")
    [ -z "$wrong" ] || fail altered "$wrong"
    switch "$back" "$was"
    sync
    answer "done $back"
}

# The rest of the lines are the arguments of the bench; its figures follow the answer.
bench() {
    IFS= read -r python && IFS= read -r COMPRESS_EXPORT_BOARD || exit 1
    export COMPRESS_EXPORT_BOARD
    case $python in
        /*) ;;
        */*) python=$PWD/$python ;;
    esac
    set --
    while IFS= read -r word; do set -- "$@" "$word"; done
    enter_folder
    name=$(name_of current)
    cd -P current 2> /dev/null || fail nothing-there
    wrong=$(altered .. "${name##*-}")
    [ -z "$wrong" ] || fail altered "$wrong"
    [ -f bench.pyz ] || fail no-bench
    "$python" -c "" > /dev/null 2>&1 || fail no-python
    figures=$(mktemp) || fail no-space "mktemp failed"
    trap "rm -f \"$figures\"" EXIT
    "$python" bench.pyz . --json "$figures" "$@" >&2 < /dev/null
    answer "ended $?"
    cat "$figures"
}

IFS= read -r action && IFS= read -r path || exit 1
case $action in
    deploy | rollback | bench) "$action" ;;
    *) fail broken "unknown action $action" ;;
esac
