# What the `command` runtime's commands are in its tests: keeps one process per workspace, as a group of its own.
# Usage: keeper.sh FOLDER WORK; what to do is in HOLDFAST_ACTION.
set -u
place=$1/$HOLDFAST_WORKSPACE_ID
case $HOLDFAST_ACTION in
start)
    mkdir -p "$place"
    rm -f "$place/ended"
    setsid sh -c "$2; echo \"{\\\"exit_code\\\": \$?}\" > '$place/said' && mv '$place/said' '$place/ended'" \
        > /dev/null 2>&1 < /dev/null &
    echo $! > "$place/pid"
    ;;
stop)
    test -e "$place/pid" || exit 0
    pid=$(cat "$place/pid")
    kill -s TERM -- "-$pid" 2> /dev/null # not -TERM: some shells take no -- after it
    while state=$(cut -d ' ' -f 3 "/proc/$pid/stat" 2> /dev/null) && test "$state" != Z; do
        sleep 0.01
    done
    test -e "$place/ended" || echo '{"exit_code": -15}' > "$place/ended"
    ;;
inspect)
    test -e "$place/pid" || exit 3
    test -e "$place/ended" || exit 0
    cat "$place/ended"
    exit 3
    ;;
esac
