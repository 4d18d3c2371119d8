"""What one can do with a tree. A verb takes trees and returns a plain result; it prints nothing."""
