package e2e
import "testing"
func testCommandLine(t *testing.T, s *system) {}
func testOperations(t *testing.T, s *system) {}
