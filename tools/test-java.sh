#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and tests the Java SDK, installs it into a repository of the build, and runs the acceptance list and the README's example
# from a fresh project that has it from there. What Maven downloads is kept there too, and asked for once.
set -euo pipefail
cd "$(dirname "$0")/.."
server=$PWD/build/acceptance-server
go build -o "$server" ./sdk/acceptance/server

repository=$PWD/.cache/maven
maven=(mvn --quiet --batch-mode "-Dmaven.repo.local=$repository")
poms=(sdk/java/pom.xml sdk/java/acceptance/pom.xml)
if cat "${poms[@]}" | cmp -s - "$repository/.complete"; then maven+=(--offline); fi
"${maven[@]}" -f sdk/java install
for file in dev/clipper/ClipperClient.java dev/clipper/v1/QueryRequest.java; do
  jar tf sdk/java/target/clipper-client-*-sources.jar "$file" | grep -q . || { echo "java: the jar of the sources has no $file" >&2; exit 1; }
done

project=$(mktemp -d)
trap 'rm -rf "$project"' EXIT
cp -r sdk/java/acceptance/. "$project"
# The first example of the README, as its readers type it, but for the address.
example=$(sed -n '/^```java$/,/^```$/p;/^```$/q' sdk/java/README.md | grep -v '^```' | sed 's/"127.0.0.1:1347"/arguments[0]/')
{
  grep '^import' <<<"$example"
  echo 'class Example { static void main(String[] arguments) {'
  grep -v '^import' <<<"$example"
  echo '}}'
} >"$project/src/main/java/Example.java"
"${maven[@]}" -f "$project" compile
cat "${poms[@]}" >"$repository/.complete"
java -classpath "$project/target/classes:$(cat "$project/target/classpath")" Acceptance "$server" 2>"$project/log" || { cat "$project/log" >&2; exit 1; }
